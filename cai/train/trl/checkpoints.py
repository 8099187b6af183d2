"""Marks the checkpoints of a training that are complete, and finds the last one."""

from __future__ import annotations

from pathlib import Path

from cai.runs.files import write_json

_SEAL = "whole.json"


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint (`checkpoints/checkpoint-12`, after 12 steps) as completely written."""
    write_json(checkpoint / _SEAL, {"step": step(checkpoint)})


def last_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint in `folder` with the most steps."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / _SEAL).is_file()]
    return max(whole, key=step, default=None)


def step(checkpoint: Path) -> int:
    """The number of steps before a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))
