"""The commands `export` and `push`: rows for trainers, and an export on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.arguments import Json, RunName, Runs, open_run
from cai.core.errors import GateFailed
from cai.core.safe_text import safe_text

if TYPE_CHECKING:
    from cai.runs.folder import Run


def export_command(
    run: RunName,
    formats: Annotated[list[str], typer.Argument(metavar="[FORMAT]...", help="Formats; the recipe's if none.")] = [],
    runs: Runs = Path("runs"),
    check: Annotated[
        bool, typer.Option("--check", help="Render what is written with a chat template; find damage.")
    ] = False,
    tokenizer: Annotated[str, typer.Option(help="For --check: a known model, a Hugging Face id or a folder.")] = "",
    max_length: Annotated[int, typer.Option(min=8, help="For --check: tokens that a trainer will keep.")] = 1024,
    as_json: Json = False,
) -> None:
    """Write a run's rows in the formats that trainers read, or check what was written."""
    from cai.cli.text import split_line
    from cai.pipeline.generate import export_run
    from cai.runs.recipe import load_recipe

    found = open_run(run, runs)
    recipe = load_recipe(found.finished / "recipe.yaml")
    names = tuple(formats) or recipe.export.formats
    if check:
        return _check_exports(found, names, tokenizer, max_length, as_json)
    written = export_run(recipe, found, names)
    if as_json:
        print(json.dumps(written))
    for name, splits in {} if as_json else written.items():
        print(f"{found.path / 'export' / name}: {split_line(splits)}")


def push_command(
    run: RunName,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The dataset repository.")],
    format: Annotated[str, typer.Option("--format", help="Which export.")] = "trl",
    runs: Runs = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Send it; without this, nothing is sent.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A new repository is public.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    as_json: Json = False,
) -> None:
    """Push an export and its card to the Hugging Face hub. Says what it would send; `--yes` sends it."""
    from cai.pipeline.push import pack, push_export

    found = open_run(run, runs)
    package = pack(found, format, repo)
    commit = message or f"cai: {found.name}, {format}"
    address = push_export(package, private=not public, message=commit) if yes else None
    if as_json:
        files = dict(package.files)
        print(json.dumps({"repo": repo, "files": files, "bytes": package.size, "pushed": yes, "commit": address}))
        return
    for name, size in package.files:
        print(f"{size:>12,}  {name}")
    seen = "public" if public else "private"
    would = f"{package.size:,} bytes would go to https://huggingface.co/datasets/{repo} ({seen} if new): add --yes"
    print(address or would)


def _check_exports(run: Run, names: tuple[str, ...], tokenizer: str, max_length: int, as_json: bool) -> None:
    from dataclasses import asdict

    from cai.cli.text import split_line
    from cai.pipeline.export_check import check_export
    from cai.pipeline.generate import tokenizer_folder

    folder = tokenizer_folder(run, tokenizer)
    found = {name: check_export(run.path / "export" / name, folder, max_length=max_length) for name in names}
    if as_json:
        print(json.dumps({name: asdict(one) for name, one in found.items()}))
    for name, one in {} if as_json else found.items():
        print(f"{name}: {split_line(one.rows)}; the longest {one.longest} tokens, {one.max_length} kept")
        for fault in one.findings:
            examples = ", ".join(fault.examples)
            print(f"  {fault.kind}: {safe_text(fault.what)} ({fault.rows} rows, such as {examples})")
    if any(fault.fatal for one in found.values() for fault in one.findings):
        raise GateFailed("a trainer would refuse or misread these rows")
