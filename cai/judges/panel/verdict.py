"""The arithmetic of verdicts: combining opinions over orders and principles, and the verdicts of several judges.

Left out on purpose: using one order alone where the other is missing; that would include the position bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Literal

from cai.core.types import Opinion, Verdict

EVEN = 1e-9
"""Tolerance for rounding: p closer than this to one half is a tie."""


def combine_opinions(opinions: Sequence[Opinion], turns: Sequence[bool]) -> Verdict:
    """One verdict from opinions that go principle by principle, each in all `turns` (True: the answers swapped).

    A principle on which the judge abstained in any order counts in none; if it abstained on all, so does the verdict.
    """
    rows = [opinions[start : start + len(turns)] for start in range(0, len(opinions), len(turns))]
    answered = [[one.p for one in row if one.p is not None] for row in rows]
    full = [row for row in answered if len(row) == len(turns)]
    means = dict(zip(turns, map(fmean, zip(*full, strict=True)), strict=False))
    orders = (means.get(False), 1 - means[True] if True in means else None)
    known = [p for p in orders if p is not None]
    return Verdict(
        p=even(fmean(known)) if known else None,
        method="",
        judge="",
        orders=orders,
        flip=(known[0] - 0.5) * (known[1] - 0.5) < 0 if len(known) == 2 else None,
        raw=tuple(one.raw for one in opinions if one.raw),
        scores=_means([one.scores for one in opinions if one.scores]),
        control=_mean(one.control for one in opinions),
        mass=_mean(one.mass for one in opinions),
    )


def combine_verdicts(verdicts: Sequence[Verdict], how: Literal["mean", "majority", "minimum"]) -> Verdict:
    """One verdict from those of several judges, kept as its parts; abstentions do not count."""
    votes = [verdict.p for verdict in verdicts if verdict.p is not None]
    flips = [verdict.flip for verdict in verdicts if verdict.flip is not None]
    return Verdict(
        p=even(_HOW[how](votes)) if votes else None,
        method=how,
        judge=" + ".join(dict.fromkeys(verdict.judge for verdict in verdicts)),
        principles=tuple(dict.fromkeys(name for verdict in verdicts for name in verdict.principles)),
        flip=any(flips) if flips else None,
        control=_mean(verdict.control for verdict in verdicts),
        disagreement=max(votes) - min(votes) if votes else None,
        parts=tuple(verdicts),
    )


def even(p: float) -> float:
    """`p`, a tie being exactly one half."""
    return 0.5 if abs(p - 0.5) < EVEN else p


def _majority(votes: Sequence[float]) -> float:
    return fmean((vote > 0.5) + (vote == 0.5) / 2 for vote in votes)


def _minimum(votes: Sequence[float]) -> float:
    """The p closest to one half where all agree; a tie where they disagree."""
    if min(votes) > 0.5:
        return min(votes)
    return max(votes) if max(votes) < 0.5 else 0.5


_HOW: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "majority": _majority, "minimum": _minimum}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _means(values: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    return (fmean(one for one, _ in values), fmean(other for _, other in values)) if values else None
