"""Lay out a folder to work in: templates and prompts to edit, a constitution of one's own, a recipe that uses it."""

from __future__ import annotations

from pathlib import Path

from cai.core import plugins
from cai.core.errors import Mistake
from cai.runs.files import write_text

MINE = (
    ("constitutions/starter.yaml", "constitutions/mine.yaml"),
    ("constitutions/schema.json", "constitutions/schema.json"),
    ("runs/demo.yaml", "runs/mine.yaml"),
)


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
    write_text(target, text)
    return target
