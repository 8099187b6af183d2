"""Prompts from files people really have: every row becomes a prompt or a failure that says why."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.core.errors import Mistake
from cai.core.types import Failure, Prompt
from cai.data.prompts import MAX_TEXT, _Seen, count_prompts, prompts_digest, read_prompts
from cai.runs.recipe import PromptSource


def read(path: Path | str, **options: Any) -> tuple[list[Prompt], list[Failure]]:
    rows = list(read_prompts(PromptSource(path=str(path), **options)))
    return [row for row in rows if isinstance(row, Prompt)], [row for row in rows if isinstance(row, Failure)]


def jsonl(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "p.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


ROWS = [{"id": "a", "prompt": "What?"}, {"id": "b", "prompt": "Why: because? yes: no"}]


def test_the_same_rows_from_every_format(tmp_path: Path) -> None:
    jsonl(tmp_path, *ROWS)
    (tmp_path / "p.json").write_text(json.dumps(ROWS))
    with open(tmp_path / "p.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "prompt"])
        writer.writeheader()
        writer.writerows(ROWS)
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    found = [read(tmp_path / f"p.{suffix}") for suffix in ("jsonl", "json", "csv", "parquet")]
    assert all(one == found[0] for one in found)
    assert [prompt.messages[0].content for prompt in found[0][0]] == [row["prompt"] for row in ROWS]


def test_several_turns_and_a_system_turn_are_kept(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "how?"},
    ]
    prompts, failures = read(jsonl(tmp_path, {"messages": turns}, {"prompt": turns[1:]}))
    assert not failures
    assert [message.role for message in prompts[0].messages] == ["system", "user", "assistant", "user"]
    assert len(prompts[1].messages) == 3


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{broken", "is not JSON"),
        ("[1, 2]", "is a list"),
        ({"text": "x"}, "no 'prompt' and no 'messages'; it has 'text'"),
        ({"prompt": ""}, "no 'prompt'"),
        ({"prompt": "  "}, "is empty"),
        ({"prompt": 3}, "is a int, not text"),
        ({"messages": []}, "not a list of turns"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "ends in a assistant turn"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "has no role"),
        ({"messages": [{"role": "user", "content": None}]}, "not text"),
        ({"prompt": "half \ud800"}, "not valid Unicode"),
        ({"prompt": "x", "id": ["no"]}, "id is a list"),
        ({"prompt": "x", "id": "a\x1b[31m"}, "control characters"),
        ({"prompt": "x" * (MAX_TEXT + 1)}, "longer than"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_row_is_a_failure_with_its_line_and_the_job_goes_on(tmp_path: Path, row: object, why: str) -> None:
    prompts, failures = read(jsonl(tmp_path, {"prompt": "before"}, row, {"prompt": "after"}))
    assert [prompt.messages[0].content for prompt in prompts] == ["before", "after"]
    assert failures[0].id == "p.jsonl:2"
    assert why in failures[0].message


def test_wrong_encodings_cost_their_row_only(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "bom"}\n{"prompt": "caf\xe9"}\n{"prompt": "after"}\r\n\n')
    prompts, failures = read(path)
    assert [prompt.messages[0].content for prompt in prompts] == ["bom", "after"]
    assert "not UTF-8" in failures[0].message
    (tmp_path / "p.csv").write_bytes(b"prompt\ncaf\xe9\nplain\n")
    prompts, failures = read(tmp_path / "p.csv")
    assert len(prompts) == len(failures) == 1


def test_utf16_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x"}\n', encoding="utf-16")
    with pytest.raises(Mistake, match="iconv"):
        read(path)


def test_a_ten_megabyte_line_is_a_failure_and_the_next_line_is_read(tmp_path: Path) -> None:
    prompts, failures = read(jsonl(tmp_path, {"prompt": "x" * 10_000_000}, {"prompt": "after"}))
    assert [prompt.messages[0].content for prompt in prompts] == ["after"]
    assert "longer than 4 MiB" in failures[0].message


def test_exact_duplicates_are_counted_and_dropped(tmp_path: Path) -> None:
    rows = [("a", "x"), ("b", "x"), ("a", "y"), ("c", "y")]
    prompts, failures = read(jsonl(tmp_path, *({"id": id, "prompt": prompt} for id, prompt in rows)))
    assert [prompt.id for prompt in prompts] == ["a", "c"]  # the one whose id was taken did not take its conversation
    assert [failure.kind for failure in failures] == ["duplicate", "duplicate_id"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), unique=True, min_size=1, max_size=6), st.randoms())
def test_derived_ids_do_not_depend_on_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], order: Any
) -> None:
    folder = tmp_path_factory.mktemp("p")
    first, _ = read(jsonl(folder, *({"prompt": text} for text in texts)))
    order.shuffle(texts)
    second, _ = read(jsonl(folder, *({"prompt": text} for text in texts)))
    assert {one.id: one for one in first} == {one.id: one for one in second}


def test_a_broken_json_array_keeps_what_came_before(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"prompt": "x"}, {"prompt": "y"}, {bro')
    prompts, failures = read(tmp_path / "p.json")
    assert len(prompts) == 2
    assert "nothing after it can be read" in failures[0].message


def test_limit_and_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"question": f"q{n}"} for n in range(9)))
    prompts, _ = read(path, column="question", limit=4)
    assert len(prompts) == 4
    assert count_prompts(PromptSource(path=str(path), limit=4)) == 4


@pytest.mark.parametrize("path", ["nowhere.jsonl", "/tmp/nowhere/at/all", "notes.docx", "no-such-set"])
def test_a_source_that_is_not_there_is_one_line(path: str) -> None:
    with pytest.raises(Mistake):
        read(path)


def test_a_datasets_folder_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"prompt": "x"}, {"prompt": "y"}]).save_to_disk(str(tmp_path / "ds"))
    prompts, _ = read(tmp_path / "ds")
    assert len(prompts) == 2


def test_the_shipped_prompts_are_in_order() -> None:
    prompts, failures = read("everyday")
    assert not failures
    assert {prompt.split for prompt in prompts} == {"train", "test"}


@given(st.lists(st.integers(1, 2**64 - 1) | st.integers(1, 40), max_size=3000))
def test_what_came_before_is_known_and_nothing_else(numbers: list[int]) -> None:
    seen, known = _Seen(), set[int]()
    for number in numbers:
        assert (number in seen) == (number in known)
        seen.add(number)
        known.add(number)
    assert all(number in seen for number in known)


def test_a_prompts_file_that_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    path.write_text('{"prompt": "x"}')
    with pytest.raises(Mistake, match="is not parquet"):
        read(path)
    with pytest.raises(Mistake, match="is not parquet"):
        count_prompts(PromptSource(path=str(path)))


def test_a_damaged_parquet_file_is_never_an_internal_error(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": f"number {n}"} for n in range(200)]), path)
    whole = path.read_bytes()
    for place in range(4, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(Mistake):
            read(path)
            count_prompts(PromptSource(path=str(path)))


def test_a_device_or_a_pipe_is_no_source_of_prompts(tmp_path: Path) -> None:
    (tmp_path / "endless.jsonl").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in ("/dev/zero", tmp_path / "endless.jsonl", tmp_path / "pipe.jsonl"):
        source = PromptSource(path=str(path))
        for ask in (count_prompts, prompts_digest, lambda source: list(read_prompts(source))):
            with pytest.raises(Mistake, match="not a regular file"):
                ask(source)


def test_a_csv_cell_of_messages_that_is_nested_too_deeply_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"messages\n{'[' * 100_000}\n")
    _, failures = read(tmp_path / "p.csv")
    assert "nested too deeply" in failures[0].message
