"""Finished work stays: over another recipe, an empty prompts file, a budget of 0, a kill or a full disk in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scripts

from cai.core.errors import BudgetReached, Mistake
from cai.pipeline.generate import generate
from cai.pipeline.run import run as run_recipe
from cai.runs import files
from cai.runs.budget import Budget
from cai.runs.files import replaced_folder, restored
from cai.runs.folder import Run
from cai.runs.progress import Progress

ROWS = ("traces.jsonl", "pairs.jsonl", "failures.jsonl", "recipe.yaml")


def rows(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ROWS}


@pytest.fixture
def done(recipe_of: Any, tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs" / "a")
    asyncio.run(generate(recipe_of(), run))
    return run


def test_a_changed_seed_under_a_budget_of_0_leaves_the_finished_run_as_it_is(recipe_of: Any, done: Run) -> None:
    before, manifest = rows(done.path), done.manifest
    with pytest.raises(BudgetReached):
        asyncio.run(generate(recipe_of(seed=5), done, budget=Budget(max_calls=0)))
    assert rows(done.path) == before
    assert done.manifest == manifest
    assert done.incomplete.manifest.status == "interrupted"


@pytest.mark.parametrize("content", ["", "\n", '{"prompt": ""}\n', "nonsense\n"])
def test_prompts_that_hold_none_are_a_mistake_and_touch_nothing(
    recipe_of: Any, done: Run, prompts_file: Path, content: str
) -> None:
    before = rows(done.path)
    prompts_file.write_text(content)
    with pytest.raises(Mistake, match=r"holds no (usable prompt|prompts)") as raised:
        asyncio.run(generate(recipe_of(), done))
    assert raised.value.exit_code == 2
    assert rows(done.path) == before
    assert not done.incomplete.path.exists()


def test_another_recipe_says_what_differs_and_keeps_what_was_there(recipe_of: Any, done: Run) -> None:
    before, notes = rows(done.path), list[str]()
    (done.path / "train" / "dpo").mkdir(parents=True)
    (done.path / "train" / "dpo" / "settings.json").write_text("{}")
    asyncio.run(generate(recipe_of(seed=5, critique={"rounds": 1}), done, Progress(note=notes.append)))
    assert "seed, critique changed" in notes[0]
    assert rows(done.path / "previous" / "001") == before
    assert (done.path / "previous" / "001" / "train" / "dpo" / "settings.json").is_file(), "it learned from those rows"
    assert not (done.path / "train").exists()
    assert done.manifest.seed == 5
    assert Run(done.path / "previous" / "001").manifest.seed == 0
    asyncio.run(generate(recipe_of(seed=6), done))
    assert rows(done.path / "previous" / "001") == before, "no earlier run is overwritten"
    assert Run(done.path / "previous" / "002").manifest.seed == 5


def test_an_edited_constitution_and_other_prompts_keep_what_was_there(
    recipe_of: Any, done: Run, prompts_file: Path
) -> None:
    notes = list[str]()
    prompts_file.write_text(prompts_file.read_text() + '{"id": "more", "prompt": "And this?"}\n')
    asyncio.run(generate(recipe_of(constitution="concise"), done, Progress(note=notes.append)))
    assert "constitution concise" in notes[0]
    assert "prompts" in notes[0]
    assert (done.path / "previous" / "001" / "pairs.jsonl").is_file()


def test_keys_that_decide_no_row_keep_nothing_and_remove_nothing(recipe_of: Any, done: Run) -> None:
    notes, before = list[str](), rows(done.path)
    kept = done.path / "train" / "x"
    kept.mkdir(parents=True)
    asyncio.run(generate(recipe_of(max_failure_share=0.5, audit={}), done, Progress(note=notes.append)))
    assert not notes
    assert not (done.path / "previous").exists()
    assert kept.is_dir()
    assert {name: data for name, data in rows(done.path).items() if name != "recipe.yaml"} == {
        name: data for name, data in before.items() if name != "recipe.yaml"
    }


def test_a_kill_anywhere_in_the_replacement_is_completed_by_the_next_reader(
    recipe_of: Any, done: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, replace, moves = rows(done.path), os.replace, 0
    for stop in range(1, 40):
        run = Run(done.path.parent / f"r{stop}")
        asyncio.run(generate(recipe_of(), run))
        moves = 0

        def killed(source: Any, target: Any, stop: int = stop, run: Run = run) -> None:
            nonlocal moves
            if (run.incomplete.path / "replace.json").exists():
                moves += 1
                if moves == stop:
                    raise OSError(28, "No space left on device")
            replace(source, target)

        monkeypatch.setattr(os, "replace", killed)
        try:
            asyncio.run(generate(recipe_of(seed=5), run))
            monkeypatch.undo()
            break
        except Mistake:  # no space left
            pass
        monkeypatch.undo()
        assert run.manifest.seed == 5, "reading completes it"
        assert rows(run.path / "previous" / "001") == before
        assert list(run.pairs())
    assert stop > 8, "every rename was tried"


def test_a_list_of_starts_is_kept_and_totals_are_their_sums(recipe_of: Any, tmp_path: Path) -> None:
    scripts.COUNT.clear()
    run, recipe = Run(tmp_path / "runs" / "a"), recipe_of("scripts:counted")
    with pytest.raises(BudgetReached):
        asyncio.run(generate(recipe, run, budget=Budget(max_calls=30)))
    for _ in range(3):
        manifest = asyncio.run(generate(recipe, run))
    asked = [start.calls["writer"].asked for start in manifest.starts]
    assert asked == [30, 70, 0, 0]
    assert [start.status for start in manifest.starts] == ["interrupted", "finished", "finished", "finished"]
    assert manifest.calls["writer"].asked == len(scripts.COUNT) == 100
    assert manifest.seconds == pytest.approx(sum(start.seconds for start in manifest.starts), abs=0.02)
    assert run.manifest == manifest


def test_the_starts_of_an_attempt_that_did_not_complete_are_not_forgotten(recipe_of: Any, done: Run) -> None:
    with pytest.raises(BudgetReached):
        asyncio.run(generate(recipe_of(seed=5), done, budget=Budget(max_calls=10)))
    manifest = asyncio.run(generate(recipe_of(seed=5), done))
    assert [start.calls["writer"].asked for start in manifest.starts] == [10, 90]


def test_a_manifest_of_an_earlier_version_counts_as_one_start(recipe_of: Any, done: Run) -> None:
    file = done.path / "manifest.json"
    old = json.loads(file.read_text())
    del old["starts"]
    file.write_text(json.dumps(old))
    manifest = asyncio.run(generate(recipe_of(), done))
    assert [start.calls["writer"].asked for start in manifest.starts] == [100, 0]
    assert manifest.calls["writer"].asked == 100


# --- The lock ---------------------------------------------------------------------------------------------------------


def test_the_lock_is_held_during_a_training(recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = Run(tmp_path / "runs" / "a"), list[str]()
    code = (
        f"from pathlib import Path; from cai.runs.folder import Run\nwith Run(Path({str(run.path)!r})).locked(): pass"
    )

    def probe(*_: Any) -> list[Any]:
        seen.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr)
        return []

    monkeypatch.setattr("cai.pipeline.run._train_all", probe)
    recipe = recipe_of(train=[{"method": "reward", "from": str(tmp_path)}])
    monkeypatch.setattr("cai.pipeline.run.check_trainings", lambda recipe: None)
    asyncio.run(run_recipe(recipe, run))
    assert "another cai process is working here" in seen[0]
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- One function replaces a folder -----------------------------------------------------------------------------------


def replaced(folder: Path, text: str) -> None:
    with replaced_folder(folder) as beside:
        (beside / "file").write_text(text)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    folder, calls, replace = tmp_path / "export", 0, os.replace
    replaced(folder, "old")

    def full(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(Mistake, match="No space left"):
        replaced(folder, "new")
    monkeypatch.undo()
    assert (folder / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


@pytest.mark.parametrize("dies_after", [0, 1, 2])
def test_a_process_that_dies_between_the_renames_loses_neither_content(tmp_path: Path, dies_after: int) -> None:
    folder = tmp_path / "model"
    replaced(folder, "old")
    code = f"""
import os
from pathlib import Path
from cai.runs.files import replaced_folder
count, replace = 0, os.replace
def killed(source, target):
    global count
    if count == {dies_after}: os._exit(9)
    replace(source, target)
    count += 1
os.replace = killed
with replaced_folder(Path({str(folder)!r})) as beside:
    (beside / "file").write_text("new")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (restored(folder) / "file").read_text() == ("new" if dies_after == 2 else "old")
    replaced(folder, "newer")
    assert (folder / "file").read_text() == "newer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_an_error_while_the_new_content_is_made_leaves_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    replaced(folder, "old")
    with pytest.raises(RuntimeError), replaced_folder(folder):
        raise RuntimeError("half done")
    assert (folder / "file").read_text() == "old"


# --- Symbolic links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".lock", "export", "traces.jsonl", "train"])
def test_a_run_with_a_symbolic_link_in_it_is_refused_by_one_line(recipe_of: Any, tmp_path: Path, name: str) -> None:
    target, run = tmp_path / "elsewhere", Run(tmp_path / "runs" / "a")
    target.mkdir()
    run.path.mkdir(parents=True)
    (run.path / name).symlink_to(target if name in ("export", "train") else target / "file")
    with pytest.raises(Mistake, match="is a symbolic link"):
        asyncio.run(generate(recipe_of(), run))
    assert not list(target.iterdir())


def test_a_link_where_a_file_is_made_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (".x.json.1.partial", "y"):
        (tmp_path / name).symlink_to(precious)
    with files.open_new(tmp_path / "y") as file:
        file.write(b"new")
    with pytest.raises(Mistake, match="cannot be written"):
        (tmp_path / "z").symlink_to(precious)
        files.append(tmp_path / "z", {"a": 1})
    assert precious.read_text() == "mine"
