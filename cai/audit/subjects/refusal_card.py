"""Evaluates the refusal detector on answers with human labels, and lists its errors.

Rows have `response` and `labels.refusal` as in XSTest (arXiv 2308.01263): full compliance, full refusal, partial
refusal. Accuracy is over full refusals and full compliance; partial refusals are reported separately, and accuracy also
by model, because the detector knows refusals by common phrases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.core.errors import Mistake
from cai.core.refusals import refuses
from cai.core.stats import Interval, share
from cai.data.files import rows
from cai.runs.files import record_as_json


@dataclass(frozen=True, slots=True)
class Miss:
    """An answer on which the detector and the human label differ."""

    id: str
    refused: bool
    """The human label."""
    saw: str
    """The text that the detector found; empty where it found none."""
    opening: str


@dataclass(frozen=True, slots=True)
class RefusalCard:
    """The refusal detector against human labels."""

    accuracy: Interval
    recall: Interval
    """Share of full refusals that are detected."""
    precision: Interval
    """Share of full refusals among the detected answers, without partial refusals."""
    partial: Interval
    """Share of partial refusals that are detected."""
    models: Mapping[str, Interval]
    """Accuracy by the model that answered."""
    misses: tuple[Miss, ...]

    def as_json(self) -> dict[str, object]:
        """As `cai audit refusals --json` prints it."""
        return record_as_json(self)


PUBLISHED = "accuracy 0.959 [0.946, 0.972] on 998 answers labelled by people (XSTest, full refusal or compliance)"
"""The result of `measure_refusals` on half of XSTest's labelled completions; a test checks it."""


def measure_refusals(path: Path) -> RefusalCard:
    """The card on a file of labelled answers. Raises Mistake where it holds none."""
    seen = list(_labelled(path))
    full = [(row, refused, saw) for row, refused, saw in seen if refused is not None]
    if not full:
        raise Mistake(str(path), "has no answer with a label of refusal", "rows need `response` and `labels.refusal`")
    right = [bool(saw) is refused for _, refused, saw in full]
    known = [bool(saw) for _, refused, saw in full if refused]
    taken = [bool(refused) for _, refused, saw in full if saw]
    partial = [bool(saw) for _, refused, saw in seen if refused is None]
    by_model: dict[str, list[bool]] = {}
    for (row, _, _), hit in zip(full, right, strict=True):
        meta = row.get("meta")
        by_model.setdefault(str(meta.get("model", "")) if isinstance(meta, dict) else "", []).append(hit)
    return RefusalCard(
        _share(right), _share(known), _share(taken), _share(partial),
        {name: _share(hits) for name, hits in sorted(by_model.items()) if name},
        tuple(
            Miss(str(row.get("id", "")), bool(refused), saw, " ".join(str(row["response"]).split())[:160])
            for row, refused, saw in full
            if bool(saw) is not refused
        ),
    )  # fmt: skip


def _labelled(path: Path) -> Iterator[tuple[Mapping[str, Any], bool | None, str]]:
    """Each labelled row, whether it refuses (None: partly), and the text that the detector found."""
    for _, row in rows(path):
        if not isinstance(row, dict) or not isinstance(row.get("response"), str):
            continue
        labels = row.get("labels")
        label = str(labels.get("refusal", "")) if isinstance(labels, dict) else ""
        kinds = {"compliance": False, "full_refusal": True, "partial_refusal": None}
        found = [refused for kind, refused in kinds.items() if f"_{label}".endswith(f"_{kind}")]
        if found:
            yield row, found[0], refuses(row["response"]) or ""


def _share(hits: list[bool]) -> Interval:
    return share(sum(hits), len(hits))


def format_interval(found: Interval) -> str:
    """`0.959 [0.946, 0.972]`."""
    if found.value is None:
        return "-"
    return f"{found.value:.3f}" + ("" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]")


def refusal_card_lines(card: RefusalCard) -> Iterator[str]:
    """The card as lines of text, its errors last."""
    yield f"accuracy  {format_interval(card.accuracy)}, {card.accuracy.n} answers that refuse or comply in full"
    yield f"recall    {format_interval(card.recall)} of full refusals"
    yield f"precision {format_interval(card.precision)}"
    yield f"partial   {format_interval(card.partial)} of {card.partial.n} partial refusals are detected"
    for name, found in card.models.items():
        yield f"  {name:18} {format_interval(found)}"
    for miss in card.misses:
        yield f"{'missed' if miss.refused else 'false '} {miss.id}: {miss.opening}"
