"""Calibration of probabilities: ECE, Brier score, NLL, a reliability table, and temperature scaling.

Every function takes p of the right answer, one number per pair. ECE and temperature: Guo et al. (2017), arXiv
1706.04599.

Left out on purpose: isotonic and Platt scaling. They need more gold labels than are usually available.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from cai.core.stats import Interval, change, interval

BINS = 10
CLIP = 1e-6
"""p is clipped to [CLIP, 1 - CLIP]: one wrong certainty would make every mean infinite."""
MAX_TEMPERATURE = 1000.0
"""The largest temperature tried: every p is about one half there."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs with similar confidence, and how often the judge was right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Calibration measures. All but `ece` are means with intervals; lower is better."""

    ece: float
    brier: Interval
    nll: Interval


@dataclass(frozen=True, slots=True)
class Scaling:
    """A temperature fitted on one half of the pairs, and its effect on the other half."""

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
    """Bins of confidence max(p, 1 - p) from 0.5 to 1, so that the order of the two answers does not matter."""
    by_bin: dict[int, list[float]] = {}
    for one in p:
        by_bin.setdefault(min(BINS - 1, int((max(one, 1 - one) - 0.5) * 2 * BINS)), []).append(one)
    return [_bin(index, by_bin[index]) for index in sorted(by_bin)]


def _bin(index: int, p: Sequence[float]) -> Bin:
    confidence, accuracy = fmean(max(one, 1 - one) for one in p), fmean(correct(one) for one in p)
    return Bin(0.5 + index / (2 * BINS), 0.5 + (index + 1) / (2 * BINS), len(p), confidence, accuracy)


def correct(p: float) -> float:
    """1 where the right answer is preferred, 0 where the wrong one is, 0.5 for a tie."""
    return (p > 0.5) + (p == 0.5) / 2


def scaling(half: Sequence[float], other: Sequence[float], seed: int = 0) -> Scaling | None:
    """Fitted on `half`, measured on `other`; None where there is nothing to fit or to measure."""
    if len(half) < 2 or len(other) < 2 or all(p == 0.5 for p in half):
        return None
    fitted = temperature(half)
    after = [scaled(p, fitted) for p in other]
    return Scaling(
        fitted, calibration(other, seed), calibration(after, seed), change(_nll(other), _nll(after), seed=seed)
    )


def temperature(p: Sequence[float]) -> float:
    """The divisor of the log-odds that minimises NLL; above 1 the judge was overconfident. At most MAX_TEMPERATURE."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return fmean(_nll([scaled(one, exp(log_temperature)) for one in p]))

    found = minimize_scalar(
        loss, bounds=(-log(MAX_TEMPERATURE), log(MAX_TEMPERATURE)), method="bounded", options={"xatol": 1e-4}
    )
    return float(exp(found.x))


def scaled(p: float, temperature: float) -> float:
    """`p` with its log-odds divided by `temperature`."""
    clipped = min(1 - CLIP, max(CLIP, p))
    return float(1 / (1 + ((1 - clipped) / clipped) ** (1 / temperature)))


def _nll(p: Sequence[float]) -> list[float]:
    return [-log(min(1.0, max(CLIP, one))) for one in p]
