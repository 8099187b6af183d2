"""How a result appears whole or not at all, and which checkpoint of a training is whole.

Left out on purpose: what is in them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cai.runs.files import write_json

_SEAL = "whole.json"


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` at the end; after an error `folder` is as it was."""
    beside, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    for left_over in (beside, old):
        shutil.rmtree(left_over, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        if folder.exists():
            os.replace(folder, old)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def seal(checkpoint: Path) -> None:
    """Say that everything of a checkpoint (`checkpoints/checkpoint-12`, 12 steps done) has been written."""
    write_json(checkpoint / _SEAL, {"step": step(checkpoint)})


def last_checkpoint(folder: Path) -> Path | None:
    """The sealed checkpoint in `folder` with most steps; half-written ones do not count."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / _SEAL).is_file()]
    return max(whole, key=step, default=None)


def step(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it."""
    return int(checkpoint.name.removeprefix("checkpoint-"))
