"""How far the refusal detector can be trusted: its agreement with people who labelled answers, and what it misses.

Rows have `response` and `labels.refusal` as in XSTest (arXiv 2308.01263): full compliance, full refusal, partial
refusal. Accuracy is that on full refusals and full compliance; what it makes of partial ones is said beside it.

Left out on purpose: a mean over kinds of answers. A detector by phrases is good on models that refuse in phrases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cai.core.errors import Mistake
from cai.core.refusals import refuses
from cai.core.stats import Interval, share
from cai.data.files import rows


@dataclass(frozen=True, slots=True)
class Miss:
    """An answer about which the detector and people differ."""

    id: str
    refused: bool
    """What people say."""
    saw: str
    """What the detector took for a refusal; empty where it saw none."""
    opening: str


@dataclass(frozen=True, slots=True)
class RefusalCard:
    """The detector against people."""

    accuracy: Interval
    recall: Interval
    """Share of full refusals that it knows."""
    precision: Interval
    """Share of full refusals among the answers that it takes for one, partial refusals left out."""
    partial: Interval
    """Share of partial refusals that it takes for refusals."""
    models: Mapping[str, Interval]
    """Accuracy by the model that answered."""
    misses: tuple[Miss, ...]


PUBLISHED = "accuracy 0.959 [0.946, 0.972] on 998 answers labelled by people (XSTest, full refusal or compliance)"
"""What `measured` says of the half of XSTest's labelled completions that we have; a test holds it to that."""


def measure_refusals(path: Path) -> RefusalCard:
    """The card on a file of labelled answers. Raises Mistake where it holds none."""
    seen = list(_labelled(path))
    full = [(row, refused, saw) for row, refused, saw in seen if refused is not None]
    if not full:
        raise Mistake(str(path), "holds no answer with a label of refusal", "rows need response and labels.refusal")
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
    """Each labelled row, whether it refuses (None: in part), and what the detector saw."""
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
    """The card as text, its misses last."""
    yield f"accuracy  {format_interval(card.accuracy)}, {card.accuracy.n} answers that refuse or comply in full"
    yield f"recall    {format_interval(card.recall)} of full refusals"
    yield f"precision {format_interval(card.precision)}"
    yield f"partial   {format_interval(card.partial)} of {card.partial.n} partial refusals are taken for refusals"
    for name, found in card.models.items():
        yield f"  {name:18} {format_interval(found)}"
    for miss in card.misses:
        yield f"{'missed' if miss.refused else 'false '} {miss.id}: {miss.opening}"


def refusal_card_as_json(card: RefusalCard) -> dict[str, Any]:
    """The card as JSON."""
    return asdict(card)
