"""A finished run made of given traces and pairs, for tests of what comes after it.

Left out on purpose: models. What a trace says is planted, so that a test knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai.core.types import Completion, Message, Pair, Prompt, Step, Trace
from cai.runs.files import write_json
from cai.runs.folder import Run, Spool

DIGEST = "c" * 64
MANIFEST: dict[str, Any] = {
    "cai": "0.1.0",
    "status": "finished",
    "name": "planted",
    "started": "2026-11-23T05:00:00Z",
    "seconds": 12.5,
    "seed": 0,
    "recipe": {"path": "/home/somebody/work/planted.yaml", "digest": "e" * 64},
    "constitution": {
        "name": "concise",
        "version": "1.0",
        "digest": DIGEST,
        "principles": [
            {
                "id": "brief",
                "title": "Say it in few words",
                "critique": "Is it brief?",
                "revise": "Be brief.",
                "weight": 1.0,
                "digest": "d" * 64,
            }
        ],
    },
    "templates": {"draft": {"name": "small", "digest": "f" * 64}},
    "prompts": {"path": "/home/somebody/prompts.jsonl", "digest": "a" * 64, "format": "jsonl"},
    "models": {"writer": {"engine": "scripted", "model": "/home/somebody/models/tiny"}},
    "packages": {"python": "3.11.7"},
    "counts": {"read": {"in": 5, "out": 4, "failed": 1}, "pair": {"in": 4, "out": 3, "failed": 1}},
    "gates": {"preamble": {"repair": 2}},
    "failures": {"duplicate": 1, "gate:unchanged": 1},
    "calls": {"writer": {"asked": 12, "found": 0}},
}


def prompt(name: str, text: str = "", split: str | None = None) -> Prompt:
    return Prompt(name, (Message("user", text or f"What is {name}?"),), split=split)


def pair(asked: Prompt, chosen: str, rejected: str, sample: int = 0) -> Pair:
    return Pair(asked, sample, chosen, rejected, 1.0, ("brief",), "revision:0>1")


def trace(asked: Prompt, draft: str, *answers: str | None, thinking: str | None = None) -> Trace:
    """A trace whose rounds revised to `answers`; None is a revision that a gate turned away."""
    steps = tuple(
        Step(number, "brief", Completion("Too long.", thinking), "fault", Completion(text or "", thinking), text)
        for number, text in enumerate(answers)
    )
    final = next((text for text in reversed(answers) if text is not None), draft)
    return Trace(asked, 0, Completion(draft, thinking), steps, final)


def plant(path: Path, traces: Sequence[Trace] = (), pairs: Sequence[Pair] = (), **manifest: object) -> Run:
    """The run folder at `path`, holding these rows; keywords take the place of manifest entries."""
    for file, kind, rows in (("traces.jsonl", Trace, traces), ("pairs.jsonl", Pair, pairs)):
        spool = Spool[Any](path / file, kind)
        for position, row in enumerate(rows):
            spool.put(position, [row])
        spool.finish()
    write_json(path / "manifest.json", MANIFEST | manifest)
    return Run(path)
