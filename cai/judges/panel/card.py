"""A judge's card: accuracy, calibration and biases of a judge, with intervals.

Every accuracy is compared with trivial baselines: always the longer answer, always the one shown first, and, for
likelihoods, the same judge without a principle. Differences are paired; an interval that contains 0 shows nothing.

Left out on purpose: a single overall score, and asking the judge: the input is verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from cai.core import calibration
from cai.core.calibration import correct
from cai.core.seeds import uniform
from cai.core.stats import Interval, interval
from cai.core.types import Verdict
from cai.runs.judge_card import CalibrationFigures, JudgeFigures, LengthFigures, PositionFigures


class Judged(NamedTuple):
    """One pair as a card counts it. With gold labels the first answer is the better one."""

    id: str
    p: float | None
    """Probability that the first is better; None: abstained."""
    orders: tuple[float | None, ...] = ()
    """The same when the first is shown first, and second."""
    control: float | None = None
    longer: float = 0.5
    """1 where the first has more words, 0 where fewer."""
    category: str = ""
    own: float | None = None
    """1 where the first, 0 where the second alone was written by the judge's own family of models."""
    mass: float | None = None
    disagreement: float | None = None
    shown_first: bool = True
    """Whether the first would be the one shown first, if the pair were shown in one order only; with P = 1/2."""


def judged_row(
    id: str, verdict: Verdict, first: str, second: str, *, shown_first: bool, category: str = "",
    own: float | None = None,
) -> Judged:  # fmt: skip
    """A verdict about two texts as a card counts it."""
    longer = correct(0.5 + (len(first.split()) > len(second.split())) - (len(first.split()) < len(second.split())))
    return Judged(
        id=id,
        p=verdict.p,
        orders=verdict.orders,
        control=verdict.control,
        longer=longer,
        category=category,
        own=own,
        mass=verdict.mass,
        disagreement=verdict.disagreement,
        shown_first=shown_first,
    )


def own_family(judge: str, first: str, second: str) -> float | None:
    """Which of two answers a model of the judge's family wrote, for Judged; None: both or neither, or not known."""
    mine = [family(name) == family(judge) for name in (first, second)]
    return float(mine[0]) if first and second and mine[0] != mine[1] else None


def family(model: str) -> str:
    """`Qwen/Qwen2.5-7B-Instruct` -> `qwen`: the letters that a model's name begins with."""
    found = re.match(r"[a-z]+", model.rsplit("/", 1)[-1].lower())
    return found[0] if found else model


def judge_figures(rows: Iterable[Judged], *, gold: bool, seed: int = 0) -> JudgeFigures:
    """The figures of `rows`; `gold`: the first of each is known to be better."""
    every = list(rows)
    answered = [row for row in every if row.p is not None]
    figures = JudgeFigures(len(every), len(every) - len(answered))
    if not answered:
        return figures
    figures = replace(
        figures,
        ties=_share((row.p == 0.5 for row in answered), seed),
        mass=_share((row.mass for row in answered), seed),
        disagreement=_share((row.disagreement for row in answered), seed),
        position=_position(answered, seed),
        length=LengthFigures(_bias(answered, lambda row: row.longer, gold, seed)),
        self_preference=_bias(answered, lambda row: row.own, gold, seed),
    )
    return _against_gold(figures, answered, seed) if gold else figures


def _against_gold(figures: JudgeFigures, rows: Sequence[Judged], seed: int) -> JudgeFigures:
    right = [correct(row.p or 0.0) for row in rows]
    controls: dict[str, Sequence[float | None]] = {
        "always_longer": [row.longer for row in rows],
        "always_first": [float(row.shown_first) for row in rows],
        "no_principle": [None if row.control is None else correct(row.control) for row in rows],
        "one_order": [None if (p := _one_order(row)) is None else correct(p) for row in rows],
    }
    names = sorted({row.category for row in rows})
    categories = {name: [one for one, row in zip(right, rows, strict=True) if row.category == name] for name in names}
    return replace(
        figures,
        accuracy=_share(right, seed),
        by_category={name: _share(values, seed) for name, values in categories.items()},
        controls={name: _share(values, seed) for name, values in controls.items()},
        gains={name: _gain(right, values, seed) for name, values in controls.items()},
        calibration=_calibration(rows, seed),
    )


def _one_order(row: Judged) -> float | None:
    """p if the pair had been shown in one order only; None where it was, or where the judge has no order."""
    if len(row.orders) != 2 or None in row.orders:
        return None
    return row.orders[0] if row.shown_first else row.orders[1]


def _position(rows: Sequence[Judged], seed: int) -> PositionFigures | None:
    """Position bias: `bias` is what being shown first adds to p, `prefers_first` how often that answer wins."""
    ordered = [row.orders for row in rows if row.orders]
    both = [(one, other) for one, other in ordered if one is not None and other is not None]
    if not ordered:
        return None
    first = [
        [correct(p) for p in (one, None if other is None else 1 - other) if p is not None] for one, other in ordered
    ]
    return PositionFigures(
        prefers_first=_share(map(fmean, first), seed),
        bias=_share(((one - other) / 2 for one, other in both), seed),
        flips=_share(((one - 0.5) * (other - 0.5) < 0 for one, other in both), seed),
        right_when_first=_share((correct(one) for one, _ in both), seed),
        right_when_second=_share((correct(other) for _, other in both), seed),
    )


def _bias(rows: Sequence[Judged], has: Callable[[Judged], float | None], gold: bool, seed: int) -> Interval | None:
    """How often the answer with a feature is preferred; 0.5 is no preference.

    With gold at matched quality: pairs where the better answer has the feature weigh as much, together, as those where
    the worse one has it, so that a judge that is only accurate shows no preference.
    """
    sides: dict[float, list[float]] = {1.0: [], 0.0: []}
    for row in rows:
        if (side := has(row)) in (0.0, 1.0) and row.p is not None:
            sides[side].append(correct(row.p) if side else 1 - correct(row.p))
    if gold and not all(sides.values()):
        return None  # one side alone cannot distinguish a preference from accuracy
    total = sum(map(len, sides.values()))
    weighted = [one * (total / (2 * len(values)) if gold else 1) for values in sides.values() for one in values]
    return _share(weighted, seed)


def _calibration(rows: Sequence[Judged], seed: int) -> CalibrationFigures:
    halves: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        halves[uniform("half", row.id) < 0.5].append(row.p or 0.0)
    p = [row.p or 0.0 for row in rows]
    fit = calibration.calibration(p, seed)
    scaling = calibration.scaling(halves[True], halves[False], seed)
    return CalibrationFigures(fit.ece, fit.brier, fit.nll, tuple(calibration.bins(p)), scaling)


def _gain(right: Sequence[float], control: Sequence[float | None], seed: int) -> Interval | None:
    return _share((one - other for one, other in zip(right, control, strict=True) if other is not None), seed)


def _share(values: Iterable[float | None], seed: int) -> Interval | None:
    known = [float(value) for value in values if value is not None]
    return interval(known, seed=seed) if known else None
