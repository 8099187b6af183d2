"""The command `init`: a folder to work in, with templates, prompts, a constitution and a recipe to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cai.core import plugins
from cai.core.errors import Mistake

MINE = (
    ("constitutions/starter.yaml", "constitutions/mine.yaml"),
    ("constitutions/schema.json", "constitutions/schema.json"),
    ("runs/demo.yaml", "runs/mine.yaml"),
)


def init_command(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")]) -> None:
    """Write a folder to work in: a constitution, templates, prompts and a recipe, all yours to edit."""
    for path in lay_out(folder):
        print(path)
    print(f"\nnext: cd {folder}, edit constitutions/mine.yaml, then: cai run mine")


def lay_out(folder: Path) -> list[Path]:
    """Write the folder and return its files. Raises Mistake where it already holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mistake(str(folder), "is there already and not empty", "name a new folder")
    copies = dict(MINE)
    prompts = plugins.shipped("prompts")
    shared = [file for file in sorted(prompts.rglob("*")) if file.suffix in (".j2", ".jsonl")]
    copies |= {(name := f"prompts/{file.relative_to(prompts).as_posix()}"): name for file in shared}
    return [_copy(source, folder / target) for source, target in copies.items()]


def _copy(source: str, target: Path) -> Path:
    text = plugins.shipped(source).read_text("utf-8")
    if target.name == "mine.yaml" and "runs" in source:
        rows, mark, rest = text.partition("# What follows")  # labels and trainings wait until the rows are liked
        text = rows.replace("constitution: concise", "constitution: constitutions/mine.yaml")
        text += "".join(f"# {line.removeprefix('# ')}\n" for line in (mark + rest).splitlines())
    from cai.runs.files import write_text

    write_text(target, text)
    return target
