"""The card of a trained model: what it learned, from which rows and models, by which constitution, and how it went.

The chain leads from the constitution's digest over the data set and each earlier model to this one; every link is in
`provenance.json` beside the weights, and travels with them.

Left out on purpose: praise, and the licence, which is the publisher's to choose.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cai.report.cards.dataset import inert

FILE = "provenance.json"


def chain(folder: Path) -> Mapping[str, Any] | None:
    """What a model folder (or the training folder around it) says of its own making; None where it says nothing."""
    for place in (folder, folder / "model"):
        try:
            return dict(json.loads((place / FILE).read_text("utf-8")))
        except (OSError, ValueError):
            continue
    return None


def model_card(link: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """README.md of a model made as `link` says, with the figures of its training."""
    what = "reward model" if link["writes"] == "reward" else "language model"
    tags = "".join(f"- {tag}\n" for tag in ("cai", link["method"], "constitutional-ai"))
    sections = [
        f"---\nlibrary_name: transformers\ntags:\n{tags}---",
        f"# A {what} trained by `cai train {link['method']}`",
        "## Where it comes from\n\n" + "\n".join(_links(link)),
        "## Rows\n\n" + _rows(link["rows"]),
        "## How it went\n\n" + "\n".join(_figures(figures)),
        "## Settings\n\n" + _settings(link),
        "## Limits\n\n" + _limits(link),
    ]
    return "\n\n".join(sections) + "\n"


def _links(link: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    pad = "  " * depth
    made_by = ", ".join(f"`{each[:16]}`" for each in link["data"]["constitutions"]) or "not said"
    yield f"{pad}- {inert(link['method'])} from {inert(link['model']['name'])}"
    yield f"{pad}  - rows {inert(link['data']['name'])}, digest `{link['data']['digest'][:16]}`, constitution {made_by}"
    if before := link["model"].get("made"):
        yield f"{pad}  - the model it started from:"
        yield from _links(before, depth + 2)
    for option, other in link.get("others", {}).items():
        yield f"{pad}  - {inert(option)}:"
        yield from _links(other, depth + 2)


def _rows(rows: Mapping[str, Any]) -> str:
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in rows["left_out"].items())
    return f"{rows['read']} read, {rows['used']} learned from, {rows['held_out']} held out{left_out}."


def _figures(figures: Mapping[str, Any], name: str = "") -> Iterator[str]:
    for key, value in figures.items():
        label = f"{name} {key}".strip()
        if isinstance(value, Mapping) and set(value) >= {"value", "low", "high"}:
            yield f"- {inert(label)}: {_number(value['value'])}{_between(value)}"
        elif isinstance(value, Mapping):
            yield from _figures(value, label)
        elif isinstance(value, int | float):
            yield f"- {inert(label)}: {_number(value)}"


def _number(value: float | None) -> str:
    return "nothing to measure it on" if value is None else f"{value:.4g}"


def _between(value: Mapping[str, Any]) -> str:
    return "" if value["low"] is None else f" [{value['low']:.4g}, {value['high']:.4g}], n = {value['n']}"


def _settings(link: Mapping[str, Any]) -> str:
    changed = "\n".join(f"- {inert(key)}: {inert(value)}" for key, value in link["options"].items())
    versions = ", ".join(f"{name} {inert(version)}" for name, version in link["packages"].items())
    return f"{changed}\n- seed: {link['seed']}\n- made with {versions}"


def _limits(link: Mapping[str, Any]) -> str:
    said = ["It learned what its rows say, and nobody has checked what it does elsewhere. Audit it: `cai audit`."]
    if link["writes"] == "reward":
        said.append("Its numbers compare answers to one prompt; between prompts they mean little.")
    return "\n".join(f"- {one}" for one in said)
