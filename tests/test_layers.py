"""The architecture, proved from the source: who imports whom, what is a plug-in, who prints and writes, what loads when."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median, quantiles

import pytest
from process import HEAVY, ROOT, loaded_by

CAI = ROOT / "cai"
FILES = sorted(CAI.rglob("*.py"))
LAYERS = (
    ("core",),
    ("constitution", "templates", "runs"),
    ("data",),
    ("backends", "gates"),
    ("judges", "checks", "export", "report"),
    ("train", "audit"),
    ("pipeline",),
    ("view",),
    ("cli",),
)
"""Packages from the lowest layer to the highest; a package imports from lower layers only."""
LAYER = {package: height for height, packages in enumerate(LAYERS) for package in packages}
PLUGINS = {
    "backends": "BACKEND", "gates": "GATE", "judges": "JUDGE", "checks": "CHECK", "export": "FORMAT", "train": "METHOD",
    "audit": "PROBE",
}  # fmt: skip
"""Plug-in folders, and the record that each file in them ends with."""
PROTOCOL = {"Options", "rows", "train", "judge", "planted", "clean", "policy", "reward", "pairs", "open", "trl", "main"}
"""Names that plug-ins of one folder share by their protocol."""


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of `cai` that a file imports, lazily and for types too, each with its line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES else node.module for name in whole]
        else:
            continue
        yield from ((name, node.lineno) for name in found if name in MODULES)


def package(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def size(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1  # type: ignore[attr-defined, no-any-return]


# --- Packages and layers ----------------------------------------------------------------------------------------------


def test_cai_holds_packages_and_no_loose_modules() -> None:
    entries = [entry.name for entry in CAI.iterdir() if entry.name != "__pycache__"]
    loose = {name for name in entries if name.endswith(".py")}
    assert loose == {"__init__.py", "__main__.py"}
    assert len(entries) <= 18
    assert {entry.name for entry in CAI.iterdir() if entry.is_dir() and entry.name != "__pycache__"} <= set(LAYER)


def test_there_are_at_most_nine_layers_and_folders_at_most_two_deep() -> None:
    assert len(LAYERS) <= 9
    assert max(len(path.relative_to(CAI).parts) for path in FILES) <= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CAI)))
def test_imports_point_to_a_lower_layer(path: Path) -> None:
    here = package(module(path))
    for name, line in imports(path) if here in LAYER else ():
        there = package(name)
        if there and there != here:
            assert LAYER[there] < LAYER[here], f"{path}:{line}: {here} imports {there}, which is no lower layer"


def test_no_imports_run_in_a_circle_lazy_ones_included() -> None:
    graph = {name: {found for found, _ in imports(path)} - {name} for name, path in MODULES.items()}
    while leaves := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"these import each other: {sorted(graph)}"


def test_a_package_says_in_one_sentence_what_is_in_it() -> None:
    for path in CAI.rglob("__init__.py"):
        assert ast.get_docstring(tree(path)), path


# --- Plug-ins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", PLUGINS)
def test_every_file_directly_in_a_plug_in_folder_is_a_plug_in(folder: str) -> None:
    for path in (CAI / folder).glob("*.py"):
        if path.name == "__init__.py":
            continue
        last = tree(path).body[-1]
        target = last.targets[0] if isinstance(last, ast.Assign) else getattr(last, "target", None)
        assert isinstance(target, ast.Name), f"{path} does not end in its record"
        assert target.id == PLUGINS[folder], f"{path} does not end in its record"


# --- Names and sizes --------------------------------------------------------------------------------------------------


def names_defined_twice() -> tuple[int, dict[str, list[str]]]:
    """Public top-level functions and classes, plug-in protocol names apart: how many, and those of several files."""
    defined: dict[str, list[str]] = {}
    for path in FILES:
        for node in tree(path).body:
            name = getattr(node, "name", "_")
            if not name.startswith("_") and name not in PROTOCOL:
                defined.setdefault(name, []).append(str(path.relative_to(CAI)))
    return sum(map(len, defined.values())), {name: found for name, found in defined.items() if len(found) > 1}


def test_a_public_name_is_defined_once() -> None:
    total, twice = names_defined_twice()
    share = sum(map(len, twice.values())) / total
    print(f"\n{sum(map(len, twice.values()))} of {total} public names are defined in several files ({share:.1%})")
    assert share <= 0.06, twice


def test_functions_and_files_stay_readable() -> None:
    sizes = sorted(size(node) for _, node in functions())
    p95 = quantiles(sizes, n=20)[-1]
    print(f"\n{len(sizes)} functions: median {median(sizes):g} lines, p95 {p95:g}, longest {sizes[-1]}")
    assert median(sizes) <= 8
    assert p95 <= 30
    long = [f"{path}:{node.lineno} {node.name}" for path, node in functions() if size(node) > 40]
    assert not long
    assert not [path for path in FILES if path.read_text("utf-8").count("\n") > 400]


def _annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    yield from (one.annotation for one in every if one and one.annotation)
    if node.returns:
        yield node.returns


def public_functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree(path).body:
        inner = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        for one in inner:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and not one.name.startswith("_"):
                yield one


def test_no_public_signature_has_any() -> None:
    found = Counter[str]()
    for path in FILES:
        for node in public_functions(path):
            for annotation in _annotations(node):
                if any(isinstance(part, ast.Name) and part.id == "Any" for part in ast.walk(annotation)):
                    found[f"{path.relative_to(CAI)}:{node.lineno} {node.name}"] += 1
    assert not found, "\n".join(found)


# --- Who prints, who writes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CAI)))
def test_only_cli_prints(path: Path) -> None:
    if package(module(path)) == "cli":
        return
    printed = [call.lineno for call in calls(path) if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not printed, f"{path}: prints in lines {printed}"


def writes(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name in ("write_text", "write_bytes") and isinstance(call.func, ast.Attribute):
        return True
    if name != "open" or isinstance(call.func, ast.Attribute):
        return False
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CAI)))
def test_only_runs_opens_files_for_writing(path: Path) -> None:
    if package(module(path)) == "runs" or path.name == "model_cache.py":  # the cache of converted models
        return
    wrote = [call.lineno for call in calls(path) if writes(call)]
    assert not wrote, f"{path}: opens files for writing in lines {wrote}"


def test_no_file_removes_both_copies_of_a_folder() -> None:
    """One function replaces a folder: nothing else renames one over another."""
    allowed = {"runs/files.py", "runs/folder.py", "backends/local/model_cache.py"}
    for path in FILES:
        renames = [call for call in calls(path) if isinstance(call.func, ast.Attribute) and call.func.attr == "replace"
                   and isinstance(call.func.value, ast.Name) and call.func.value.id == "os"]  # fmt: skip
        assert not renames or path.relative_to(CAI).as_posix() in allowed, path


# --- What is loaded when ----------------------------------------------------------------------------------------------

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
from cai.pipeline.generate import generate
from cai.runs.recipe import Recipe
from cai.runs.folder import Run
recipe = Recipe.model_validate(dict(constitution="concise", prompts="everyday", templates="small",
    writer=dict(backend="scripted", script="scripts:steady"), critique=dict(rounds=1), export=dict(formats=[])))
asyncio.run(generate(recipe, Run(pathlib.Path({str(tmp_path / "run")!r}))))
"""
    assert not loaded_by(code) & set(HEAVY)


def test_the_public_names_are_there_and_dir_shows_them() -> None:
    import cai

    assert set(cai.__all__) <= set(dir(cai))
    assert all(getattr(cai, name) for name in cai.__all__)
    assert (CAI / "py.typed").is_file()
