"""A judge's figures as lines of text: each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.calibration import Fit
from cai.core.stats import Interval
from cai.runs.judge_card import CalibrationFigures, JudgeFigures, LengthFigures, PositionFigures


def format_share(found: Interval | None) -> str:
    """`0.625 [0.538, 0.714]`; a dash where there is nothing to say."""
    if found is None or found.value is None:
        return "–"
    return f"{found.value:.3f}" + ("" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]")


def judge_card_lines(figures: JudgeFigures) -> Iterator[tuple[str, str]]:
    """The figures as name and value, in the order in which they are read; what there is nothing of is left out."""
    lost = "".join(f", {count} {kind}" for kind, count in sorted(figures.lost.items()))
    pairs = figures.n if figures.pairs is None else figures.pairs
    yield "pairs", f"{pairs}, {figures.abstained} abstained{lost}"
    yield from ((name, format_share(one)) for name, one in shares(figures) if one)
    if calibration := figures.calibration:
        yield "calibration", _fit(calibration)
        if scaling := calibration.scaling:
            yield f"temperature {scaling.temperature:,.2f} from one half", f"other half: {_fit(scaling.before)}"
            yield "  after it", f"{_fit(scaling.after)}; NLL change {format_share(scaling.nll_change)}"


def shares(figures: JudgeFigures) -> Iterator[tuple[str, Interval | None]]:
    """Every figure that is a mean with an interval, by its name."""
    position, length = figures.position or PositionFigures(), figures.length or LengthFigures()
    yield "accuracy", figures.accuracy
    yield from ((f"  {name}", one) for name, one in figures.by_category.items() if name)
    yield from ((CONTROLS[name], one) for name, one in figures.controls.items())
    yield from ((f"gain over {CONTROLS[name]}", one) for name, one in figures.gains.items())
    yield from ((title, getattr(position, name)) for name, title in POSITION.items())
    yield "prefers the longer" + ("" if figures.accuracy is None else ", quality matched"), length.prefers_longer
    yield "prefers its own family", figures.self_preference
    yield "ties", figures.ties
    yield "probability on the options", figures.mass
    yield "disagreement", figures.disagreement


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


def _fit(found: CalibrationFigures | Fit) -> str:
    return f"ECE {found.ece:.3f}, Brier {format_share(found.brier)}, NLL {format_share(found.nll)}"
