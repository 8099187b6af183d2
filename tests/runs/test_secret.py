"""The secret of fence ids: made once beside the journal, the same for all who share it, and written nowhere else."""

from __future__ import annotations

import asyncio
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scripts

from cai.core.errors import Mistake
from cai.core.seeds import nonce, seed, seed_and_nonce
from cai.pipeline.estimate import estimate
from cai.pipeline.generate import generate
from cai.runs.folder import Run
from cai.runs.progress import Progress
from cai.runs.secret import VARIABLE, fence_secret


@pytest.fixture(autouse=True)
def _no_secret_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)


def asked(recipe: Any, folder: Path, progress: Progress | None = None) -> int:
    """New calls of one start."""
    progress = progress or Progress()
    asyncio.run(generate(recipe, Run(folder), progress))
    return sum(tally.asked for tally in progress.tallies.values())


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    made = fence_secret(tmp_path / "journal.sqlite")
    file = tmp_path / "journal.secret"
    assert fence_secret(tmp_path / "journal.sqlite") == made == bytes.fromhex(file.read_text()) and len(made) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cai.runs.secret import fence_secret;"
        "sys.stdin.readline(); print(fence_secret(Path(sys.argv[1])).hex())"
    )
    root = str(Path(__file__).parents[2])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "journal.sqlite")],
            env={"PYTHONPATH": root}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for each in started:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    assert len({each.communicate()[0] for each in started}) == 1


@pytest.mark.parametrize("content", ["", "abc", "5a" * 31, "zz" * 32, "\x00" * 64, "ü" * 32])
def test_a_bad_file_is_one_line_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "journal.secret").write_text(content)
    with pytest.raises(
        Mistake, match="journal.secret: is not a secret of 64 hexadecimal digits; copy it again, or del"
    ):
        fence_secret(tmp_path / "journal.sqlite")


def test_a_bad_variable_is_one_line_that_does_not_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "hunter2")
    with pytest.raises(Mistake, match=VARIABLE) as caught:
        fence_secret(tmp_path / "journal.sqlite")
    assert "hunter2" not in str(caught.value)


def test_the_variable_counts_before_the_file_and_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "AB" * 32)
    assert fence_secret(tmp_path / "journal.sqlite") == b"\xab" * 32
    assert not list(tmp_path.iterdir())


def test_no_id_can_be_computed_without_the_secret_and_no_seed_depends_on_it() -> None:
    assert nonce(b"one", 0, "revise", "p1") != nonce(b"two", 0, "revise", "p1")
    assert seed_and_nonce(b"one", 0, "x") == (seed(0, "x"), nonce(b"one", 0, "x"))
    assert re.fullmatch(r"[0-9a-f]{10}", nonce(b"one", 0, "x"))


def test_a_journal_answers_again_with_its_secret_and_on_another_machine_with_a_copy(
    recipe_of: Any, tmp_path: Path
) -> None:
    recipe, one, other = recipe_of(templates="large"), tmp_path / "one", tmp_path / "other"
    assert asked(recipe, one / "a") == 20 * 5
    assert asked(recipe, one / "b") == 0
    assert asyncio.run(estimate(recipe, Run(one / "c"))).new == 0
    other.mkdir()
    for name in ("journal.sqlite", "journal.secret"):
        shutil.copy(one / name, other / name)
    assert asked(recipe, other / "a") == 0
    assert (one / "a" / "traces.jsonl").read_bytes() == (other / "a" / "traces.jsonl").read_bytes()


def test_a_lost_secret_is_said_and_only_fenced_questions_are_asked_again(recipe_of: Any, tmp_path: Path) -> None:
    notes = list[str]()
    progress = Progress(note=notes.append)
    asked(recipe_of(templates="large"), tmp_path / "large", progress)
    asked(recipe_of(), tmp_path / "small", progress)
    assert notes == []
    (tmp_path / "journal.secret").unlink()
    assert asked(recipe_of(), tmp_path / "small", Progress(note=notes.append)) == 0
    assert [note for note in notes if "journal.secret was missing" in note] == notes and len(notes) == 1
    assert asked(recipe_of(templates="large"), tmp_path / "large") == 20 * 4  # the drafts show no fence


def test_neither_the_secret_nor_a_fence_id_is_in_a_file_of_the_run(recipe_of: Any, tmp_path: Path) -> None:
    ids = set[str]()

    def script(request: Any) -> str:
        ids.update(re.findall(r'<text id="(\w+)">', request.messages[-1].content))
        return scripts.steady(request)

    scripts.watched = script  # type: ignore[attr-defined]
    recipe = recipe_of("scripts:watched", templates="large", export={"formats": ["trl"]})
    asked(recipe, tmp_path / "runs" / "a")
    secret = (tmp_path / "runs" / "journal.secret").read_text().strip()
    files = [path for path in (tmp_path / "runs" / "a").rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    assert len(ids) >= 40 and len(files) > 5
    assert not [word for word in (secret, *ids) if word.encode() in written]
