"""Does a probability mean what it says: ECE, Brier score, NLL, a reliability table, and the temperature that mends it.

Everything takes p of the right answer, one number a pair. Guo et al. (2017), arXiv 1706.04599, for ECE and temperature.

Left out on purpose: isotonic and Platt scaling. They need more gold labels than a judge usually meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from cai.core.stats import Interval, change, interval

BINS = 10
CLIP = 1e-6
"""A p nearer than this to 0 or 1 is taken for this: one wrong certainty would make every mean infinite."""
HOT = 1000.0
"""The largest temperature tried: every p is one half there."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs about which the judge was about as sure, and how often it was right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Fit:
    """How far p can be trusted. All but `ece` are means with intervals; lower is better."""

    ece: float
    brier: Interval
    nll: Interval


@dataclass(frozen=True, slots=True)
class Scaling:
    """A temperature fitted on one half of the pairs, and what it does to the other half."""

    temperature: float
    before: Fit
    after: Fit
    nll_change: Interval
    """Paired, on the half that was not fitted on."""


def calibration(p: Sequence[float], seed: int = 0) -> Fit:
    """The three measures; `p` is not empty."""
    brier = interval([(1 - one) ** 2 for one in p], seed=seed)
    gaps = [part.n * abs(part.accuracy - part.confidence) for part in bins(p)]
    return Fit(sum(gaps) / len(p), brier, interval(_nll(p), seed=seed))


def bins(p: Sequence[float]) -> list[Bin]:
    """By confidence, from 0.5 to 1: folded, so that it does not matter which answer was called the first."""
    inside: dict[int, list[float]] = {}
    for one in p:
        inside.setdefault(min(BINS - 1, int((max(one, 1 - one) - 0.5) * 2 * BINS)), []).append(one)
    return [_bin(place, inside[place]) for place in sorted(inside)]


def _bin(place: int, p: Sequence[float]) -> Bin:
    sure, right = fmean(max(one, 1 - one) for one in p), fmean(correct(one) for one in p)
    return Bin(0.5 + place / (2 * BINS), 0.5 + (place + 1) / (2 * BINS), len(p), sure, right)


def correct(p: float) -> float:
    """1 where the right answer is preferred, 0 where the wrong one is, 0.5 for a tie."""
    return (p > 0.5) + (p == 0.5) / 2


def scaling(half: Sequence[float], other: Sequence[float], seed: int = 0) -> Scaling | None:
    """Fitted on `half`, measured on `other`; None where there is nothing to fit or to measure."""
    if len(half) < 2 or len(other) < 2 or all(p == 0.5 for p in half):
        return None
    heat = temperature(half)
    after = [scaled(p, heat) for p in other]
    return Scaling(
        heat, calibration(other, seed), calibration(after, seed), change(_nll(other), _nll(after), seed=seed)
    )


def temperature(p: Sequence[float]) -> float:
    """What to divide log-odds by for the least NLL; above 1 the judge was surer than right. At most HOT."""
    from scipy.optimize import minimize_scalar

    def loss(log_heat: float) -> float:
        return fmean(_nll([scaled(one, exp(log_heat)) for one in p]))

    found = minimize_scalar(loss, bounds=(-log(HOT), log(HOT)), method="bounded", options={"xatol": 1e-4})
    return float(exp(found.x))


def scaled(p: float, heat: float) -> float:
    """`p` with its log-odds divided by `heat`."""
    held = min(1 - CLIP, max(CLIP, p))
    return float(1 / (1 + ((1 - held) / held) ** (1 / heat)))


def _nll(p: Sequence[float]) -> list[float]:
    return [-log(min(1.0, max(CLIP, one))) for one in p]
