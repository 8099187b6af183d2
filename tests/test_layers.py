"""The walls of the house, proved from the source: who may import whom, who prints, who writes, what loads when."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import HEAVY, loaded_by

ROOT = Path(__file__).parents[1]
CAI = ROOT / "cai"
FILES = sorted(CAI.rglob("*.py"))
FLOORS = (
    ("types", "errors", "digest", "safe", "together", "language", "lock"),
    ("records",),
    ("plugins",),
    ("outside", "moulds"),
    ("budget",),
    ("recipe", "lint", "templates", "journal", "runs", "refusal", "diff", "stats", "rows", "shapes"),
    ("constitution", "sources", "preferences", "shares", "foreign", "starter", "progress", "calibration"),
    ("judge_card", "refusal_card"),
    ("stages", "backends", "mock", "judges", "export", "card", "check", "report", "phrases", "edits"),
    ("scorer",),
    ("train", "audit"),
    ("dataset", "manifest", "gold", "hygiene"),
    ("labelling", "lessons", "model_card"),
    ("auditing",),
    ("training", "scoring"),
    ("pipeline",),
    ("asking",),
    ("redteam",),
    ("iterating", "course"),
    ("live", "screen", "offline", "publish", "measure"),
    (
        "cli_constitution",
        "cli_judge",
        "cli_push",
        "cli_endpoints",
        "cli_check",
        "cli_audit",
        "cli_redteam",
        "cli_train",
    ),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def room(path: Path) -> str:
    return path.relative_to(CAI).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CAI)))
def test_imports_point_to_a_lower_floor(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    assert here in FLOOR, f"{here} has no floor: add it to FLOORS and to docs/design.md"
    for name, line in imports(path):
        there = name.split(".")[1] if name.startswith("cai.") else ""
        if there and there != here and there != "__version__":
            assert FLOOR[there] < FLOOR[here], f"{path}:{line}: {here} imports {there}, which is no lower floor"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CAI)))
def test_only_cli_prints(path: Path) -> None:
    if room(path) == "cli" or room(path).startswith("cli_"):
        return
    printed = [call.lineno for call in calls(path) if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not printed, f"{path}: prints in lines {printed}"


def writes(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name in ("write_text", "write_bytes") and isinstance(call.func, ast.Attribute):
        return not (isinstance(call.func.value, ast.Name) and call.func.value.id == "runs")
    if name != "open" or isinstance(call.func, ast.Attribute):
        return False
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CAI)))
def test_only_journal_and_runs_write_files(path: Path) -> None:
    if path.relative_to(CAI).as_posix() in ("journal.py", "runs.py", "backends/_weights.py"):  # the model cache
        return
    wrote = [call.lineno for call in calls(path) if writes(call)]
    assert not wrote, f"{path}: opens files for writing in lines {wrote}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CAI)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400, "a file stops at 400 lines"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "every file opens by saying what it does"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 45, f"{path}:{node.lineno} {node.name} is too long"


QUIET = "import contextlib, io\nwith contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): "


@pytest.mark.parametrize(
    "code",
    [
        "import cai",
        "import sys; sys.argv = ['cai', '--help']; import cai.cli.main\n" + QUIET + "cai.cli.main.main()",
        "import sys; sys.argv = ['cai', 'constitution', 'lint', 'constitutions/default.yaml']; import cai.cli.main\n"
        + QUIET + "cai.cli.main.main()",
        "import cai.pipeline.generate, cai.backends.scripted, cai.backends.transformers",
    ],
)  # fmt: skip
def test_light_commands_load_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & set(HEAVY)


def test_a_run_without_a_local_model_loads_no_torch(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from cai.pipeline import generate as pipeline
from cai.runs.recipe import Recipe
from cai.runs.folder import Run
recipe = Recipe.model_validate(dict(constitution="concise", prompts="everyday", templates="small",
    writer=dict(backend="scripted", script="scripts:steady"), critique=dict(rounds=1), export=dict(formats=[])))
asyncio.run(pipeline.generate(recipe, Run(pathlib.Path({str(tmp_path / "run")!r}))))
"""
    assert not loaded_by(code) & set(HEAVY)


def test_public_names_are_few_and_there() -> None:
    import cai

    assert len(cai.__all__) <= 10
    assert all(getattr(cai, name) for name in cai.__all__)
