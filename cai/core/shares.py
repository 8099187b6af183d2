"""Intervals of shares, and of differences between two shares, from counts alone.

A share of n rows, resampled, is a binomial draw; a difference of two shares of the same rows is a multinomial one. So
the percentile bootstrap of `stats` needs no row, and costs the same for a hundred rows as for a million.

Left out on purpose: rows that hang together, such as many pairs of one prompt; they make a true interval wider.
"""

from __future__ import annotations

from cai.core.stats import RESAMPLES, Interval


def share(hits: int, n: int, *, level: float = 0.95, seed: int = 0) -> Interval:
    """`hits` of `n` with its interval. One row has no interval, none no value."""
    return difference(hits, 0, n, level=level, seed=seed)


def difference(more: int, less: int, n: int, *, level: float = 0.95, seed: int = 0) -> Interval:
    """The share of `n` rows that have it only here, minus the share that have it only there, paired by row."""
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
