"""The run folder: order, wholeness, names, and rows that do not fit."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.core.errors import Mistake
from cai.core.types import Completion, Failure, GateHit, Message, Pair, Prompt, Step, Trace, Usage
from cai.runs.files import atomic
from cai.runs.folder import Run, Spool, run_folder

TEXT = st.text(max_size=40)
COMPLETIONS = st.builds(
    Completion,
    text=TEXT,
    thinking=st.none() | TEXT,
    finish=st.sampled_from(["stop", "length", "filter"]),
    usage=st.builds(Usage, st.integers(0, 99), st.integers(0, 99)),
)
PROMPTS = st.builds(
    Prompt,
    id=TEXT,
    messages=st.lists(st.builds(Message, st.sampled_from(["system", "user"]), TEXT), min_size=1, max_size=3).map(tuple),
    tags=st.lists(TEXT, max_size=2).map(tuple),
    split=st.none() | TEXT,
)
HITS = st.lists(st.builds(GateHit, TEXT, st.sampled_from(["drop", "tag", "repair"]), TEXT), max_size=2).map(tuple)
STEPS = st.builds(
    Step,
    round=st.integers(0, 5),
    principle=TEXT,
    critique=st.none() | COMPLETIONS,
    verdict=st.sampled_from([None, "fault", "clean", "unclear"]),
    revision=st.none() | COMPLETIONS,
    answer=st.none() | TEXT,
    gates=HITS,
)
TRACES = st.builds(
    Trace,
    prompt=PROMPTS,
    sample=st.integers(0, 3),
    draft=COMPLETIONS,
    steps=st.lists(STEPS, max_size=3).map(tuple),
    final=TEXT,
    gates=HITS,
)
PAIRS = st.builds(
    Pair,
    prompt=PROMPTS,
    sample=st.integers(0, 3),
    chosen=TEXT,
    rejected=TEXT,
    p_chosen=st.floats(0.5, 1),
    principles=st.lists(TEXT, max_size=2).map(tuple),
    source=TEXT,
    gates=HITS,
)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(TRACES, max_size=5), order=st.randoms())
def test_rows_come_back_in_input_order_whatever_order_they_finish_in(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Trace], order: random.Random
) -> None:
    path = tmp_path_factory.mktemp("run") / "traces.jsonl"
    positions = list(range(len(rows)))
    order.shuffle(positions)
    spool = Spool(path, Trace)
    for position in positions:
        spool.put(position, [rows[position]])
    spool.finish()
    assert list(Run(path.parent).traces()) == rows


@settings(max_examples=50, deadline=None)
@given(st.lists(PAIRS, max_size=3))
def test_every_pair_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, rows: list[Pair]) -> None:
    path = tmp_path_factory.mktemp("run") / "pairs.jsonl"
    spool = Spool(path, Pair)
    spool.put(0, rows)
    spool.finish()
    assert list(Run(path.parent).pairs()) == rows


def test_a_position_with_no_rows_leaves_no_gap(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "failures.jsonl", Failure)
    for position in (5, 0, 2):
        spool.put(position, [Failure(str(position), "draft", "empty", "nothing")] if position else [])
    spool.finish()
    assert [row.id for row in Run(tmp_path).failures()] == ["2", "5"]


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(RuntimeError), atomic(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="No space left"), atomic(tmp_path / "x"):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 101, "nul\0", "a b", "..", "-o", "C:\\x", "é"])
def test_a_run_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(Mistake, match="is not a run name"):
        run_folder(tmp_path, name)


def test_a_row_that_does_not_fit_is_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text('{"prompt": 3}\n')
    with pytest.raises(Mistake, match=r"traces\.jsonl:1: prompt"):
        list(Run(tmp_path).traces())


def test_two_processes_cannot_work_in_one_run_folder(tmp_path: Path) -> None:
    other = (
        f"from pathlib import Path; from cai.runs.folder import Run\nwith Run(Path({str(tmp_path)!r})).locked(): pass"
    )
    with Run(tmp_path).locked(), Run(tmp_path).locked():  # one process may hold it twice
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
    assert "another cai process is working here" in done.stderr
    assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 0


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="cai run RECIPE"):
        _ = Run(tmp_path).manifest
