"""The judges in the report: who judged, how often they were right, and how sure they may be; also a page of its own.

Left out on purpose: computing. What is shown was counted by the run, or by `cai judge-card`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from markupsafe import Markup

from cai.core.stats import Interval
from cai.report import svg

Card = Mapping[str, Any]  # JSON as the run wrote it


def facts(judge: Card) -> dict[str, object]:
    """What the section shows: how the run's labels came about, and a card of them and of each gold file."""
    cards = [("This run's labels", judge["labels"])] if judge.get("labels") else []
    cards += [(f"Measured on {name}", card) for name, card in judge.get("gold", {}).items()]
    return {"judge": judge, "cards": [_card(name, card) for name, card in cards]}


def page(said: Card) -> str:
    """One offline page of a card that `cai judge-card` made."""
    from cai.report.html import rendered

    found = facts(said["judge"] | {"gold": said["gold"]})
    return rendered("judge.page.html.j2", said=said, found=found, version=metadata.version("cai"))


def _card(name: str, card: Card) -> dict[str, object]:
    rows = list(_rows(card))
    along = svg.Axis(-0.5, 1.5, 1)
    bins = (card.get("calibration") or {}).get("bins") or []
    return {
        "name": name,
        "card": card,
        "rows": [{"name": one, "found": found, "whisker": svg.whisker(found, along)} for one, found in rows],
        "scale": svg.scale(along),
        "plot": reliability(bins) if bins else None,
        "scaling": (card.get("calibration") or {}).get("scaling"),
    }


def _rows(card: Card) -> Iterator[tuple[str, Interval]]:
    from cai.report.cards.judge import CONTROLS, POSITION

    found = [("Accuracy", card.get("accuracy"))]
    found += [(f"in {name}", one) for name, one in (card.get("by_category") or {}).items() if name]
    found += [(f"Control: {CONTROLS[name]}", one) for name, one in (card.get("controls") or {}).items()]
    found += [(f"Gain over {CONTROLS[name]}", one) for name, one in (card.get("gains") or {}).items()]
    found += [(POSITION[name].capitalize(), one) for name, one in (card.get("position") or {}).items()]
    found += [("Prefers the longer answer", card["length"]["prefers_longer"])] if card.get("length") else []
    found += [("Prefers its own family", card.get("self_preference")), ("Ties", card.get("ties"))]
    found += [("Probability on the options", card.get("mass")), ("Disagreement", card.get("disagreement"))]
    return ((name, Interval(**one)) for name, one in found if one)


def reliability(bins: list[Mapping[str, float]]) -> Markup:
    """Accuracy by confidence: dots as large as their share of the pairs, on the diagonal where p means what it says."""
    most = max(part["n"] for part in bins)
    floor, top = svg.HEIGHT - 24, 12

    def y(accuracy: float) -> float:
        return floor - (floor - top) * accuracy

    parts = [svg.rule(y(level), "base" if level == 0 else "grid") for level in (0, 0.25, 0.5, 0.75, 1)]
    parts += [svg.label(100, y(level) - 3, f"{level:g}", "tick") for level in (0.25, 0.5, 0.75, 1)]
    parts += [svg.label(200 * (p - 0.5), svg.HEIGHT - 6, f"{p:g}", "tick") for p in (0.5, 0.6, 0.7, 0.8, 0.9, 1)]
    diagonal = '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 1 1" preserveAspectRatio="none">{}</svg>'
    line = Markup('<path class="diagonal" d="M0 1 L1 0" vector-effect="non-scaling-stroke"/>')
    parts.append(Markup(diagonal).format(y(1), y(0.5) - y(1), line))
    dot = '<circle class="dot" cx="{:.2f}%" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
    for part in bins:
        note = f"{part['n']} pairs: confidence {part['confidence']:.3f}, right {part['accuracy']:.3f}"
        x, size = 200 * (part["confidence"] - 0.5), 3 + 6 * (part["n"] / most) ** 0.5
        parts.append(Markup(dot).format(x, y(part["accuracy"]), size, note))
    return svg.figure(parts, "Accuracy by confidence")
