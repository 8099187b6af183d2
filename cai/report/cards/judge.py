"""A judge's card as lines of text: each figure with its interval."""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.stats import Interval
from cai.judges.panel.card import Card


def shown(found: Card | None) -> str:
    """`0.625 [0.538, 0.714]`; a dash where there is nothing to say."""
    if found is None or found["value"] is None:
        return "–"
    one = Interval(**found)
    return f"{one.value:.3f}" + ("" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]")


def lines(card: Card) -> Iterator[tuple[str, str]]:
    """A card as name and value, in the order in which it is read; what it does not hold is left out."""
    position, length = card.get("position") or {}, card.get("length") or {}
    calibration = card.get("calibration") or {}
    scaling = calibration.get("scaling") or {}
    yield "pairs", f"{card.get('pairs', card['n'])}, {card['abstained']} abstained" + _lost(card.get("lost") or {})
    found: list[tuple[str, Card | None]] = [("accuracy", card.get("accuracy"))]
    found += [(f"  {name}", one) for name, one in (card.get("by_category") or {}).items() if name]
    found += [(CONTROLS[name], one) for name, one in (card.get("controls") or {}).items()]
    found += [(f"gain over {CONTROLS[name]}", one) for name, one in (card.get("gains") or {}).items()]
    found += [(POSITION[name], position.get(name)) for name in POSITION]
    found += [
        ("prefers the longer" + ("" if "accuracy" not in card else ", quality matched"), length.get("prefers_longer"))
    ]
    found += [("prefers its own family", card.get("self_preference")), ("ties", card.get("ties"))]
    found += [("probability on the options", card.get("mass")), ("disagreement", card.get("disagreement"))]
    yield from ((name, shown(one)) for name, one in found if one)
    if calibration:
        yield "calibration", _fit(calibration)
    if scaling:
        yield f"temperature {scaling['temperature']:,.2f} from one half", f"other half: {_fit(scaling['before'])}"
        yield "  after it", f"{_fit(scaling['after'])}; NLL change {shown(scaling['nll_change'])}"


CONTROLS = {
    "always_longer": "always the longer",
    "always_first": "always the first shown",
    "no_principle": "no principle",
    "one_order": "one order",
}


POSITION = {
    "bias": "added to p by being shown first",
    "prefers_first": "prefers the first shown",
    "flips": "flips with the order",
    "right_when_first": "right when the better is first",
    "right_when_second": "right when the better is second",
}


def _fit(found: Card) -> str:
    return f"ECE {found['ece']:.3f}, Brier {shown(found['brier'])}, NLL {shown(found['nll'])}"


def _lost(lost: dict[str, int]) -> str:
    return "".join(f", {count} {kind}" for kind, count in sorted(lost.items()))
