"""The card of a trained model: its initial model, rows, constitution, settings and figures, as README.md.

The provenance of earlier models is included: a chain from the constitution's digest to this model. The licence is left
to the publisher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cai.report.cards.dataset import inert
from cai.runs.manifest import RowCounts
from cai.runs.training import Provenance


def model_card(made: Provenance, figures: Mapping[str, object]) -> str:
    """README.md of the model that `made` describes, with the figures of its training."""
    what = "reward model" if made.writes == "reward" else "language model"
    tags = "".join(f"- {tag}\n" for tag in ("cai", made.method, "constitutional-ai"))
    sections = [
        f"---\nlibrary_name: transformers\ntags:\n{tags}---",
        f"# A {what} trained by `cai train {made.method}`",
        "## Provenance\n\n" + "\n".join(_chain(made)),
        "## Rows\n\n" + _rows(made.rows),
        "## Results\n\n" + "\n".join(_figures(figures)),
        "## Settings\n\n" + _settings(made),
        "## Limits\n\n" + _limits(made),
    ]
    return "\n\n".join(sections) + "\n"


def _chain(made: Provenance, depth: int = 0) -> Iterator[str]:
    pad = "  " * depth
    constitutions = ", ".join(f"{inert(each[:16])}" for each in made.data.constitutions) or "not recorded"
    data = f"rows {inert(made.data.name)}, digest {inert(made.data.digest[:16])}"
    yield f"{pad}- {inert(made.method)} from {inert(made.model.name)}"
    yield f"{pad}  - {data}, constitution {constitutions}"
    if made.model.made:
        yield f"{pad}  - the initial model:"
        yield from _chain(made.model.made, depth + 2)
    for option, other in made.others.items():
        yield f"{pad}  - {inert(option)}:"
        yield from _chain(other, depth + 2)


def _rows(rows: RowCounts) -> str:
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in rows.left_out.items())
    return f"{rows.read} read, {rows.used} used for training, {rows.held_out} held out{left_out}."


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
    return "no rows to measure it on" if value is None else f"{value:.4g}"


def _between(value: Mapping[str, Any]) -> str:
    return "" if value["low"] is None else f" [{value['low']:.4g}, {value['high']:.4g}], n = {value['n']}"


def _settings(made: Provenance) -> str:
    changed = "\n".join(f"- {inert(key)}: {inert(value)}" for key, value in made.options.items())
    versions = ", ".join(f"{name} {inert(version)}" for name, version in made.packages.items())
    return f"{changed}\n- seed: {made.seed}\n- made with {versions}"


def _limits(made: Provenance) -> str:
    limits = ["It was not evaluated beyond the figures above. Audit it: `cai audit`."]
    if made.writes == "reward":
        limits.append("Its scores compare answers to one prompt; they are not comparable between prompts.")
    return "\n".join(f"- {one}" for one in limits)
