"""Bootstrap confidence intervals that are the same on every machine and in every run.

Left out on purpose: intervals from formulas, which assume a distribution that word counts do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

RESAMPLES = 2000
_AT_ONCE = 20_000  # resampled values held at a time: few enough to stay in the processor's cache, ten times as fast


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic of `n` values between `low` and `high`; None, never NaN, where `n` is too small."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def interval(
    values: Sequence[float], statistic: Literal["mean", "median"] = "mean", *, level: float = 0.95, seed: int = 0
) -> Interval:
    """The statistic with its percentile bootstrap interval (Efron, 1979). One value has no interval."""
    import numpy as np

    n, function = len(values), getattr(np, statistic)
    if n == 0:
        return Interval(None, None, None, 0)
    sample_N = np.asarray(values, dtype=float)
    value = float(function(sample_N))
    if n == 1:
        return Interval(value, None, None, 1)
    rng = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // n)
    chunks = (min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows))
    drawn = [function(sample_N[rng.integers(n, size=(chunk, n))], axis=1) for chunk in chunks]
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n)


def change(before: Sequence[float], after: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean change from before to after, paired: the differences are resampled, not the two sides."""
    return interval([b - a for a, b in zip(before, after, strict=True)], level=level, seed=seed)


def share(hits: int, n: int, *, level: float = 0.95, seed: int = 0) -> Interval:
    """`hits` of `n` with its interval. A single row has no interval; no rows give None."""
    return difference(hits, 0, n, level=level, seed=seed)


def difference(more: int, less: int, n: int, *, level: float = 0.95, seed: int = 0) -> Interval:
    """(more - less) / n with its interval, paired by row: rows that have it only here minus only there."""
    import numpy as np

    if n == 0:
        return Interval(None, None, None, 0)
    value = (more - less) / n
    if n == 1:
        return Interval(value, None, None, 1)
    rng = np.random.default_rng(seed)
    drawn_R3 = rng.multinomial(n, [more / n, less / n, (n - more - less) / n], size=RESAMPLES)
    low, high = np.quantile((drawn_R3[:, 0] - drawn_R3[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n)
