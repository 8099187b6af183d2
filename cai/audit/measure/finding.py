"""Turns one number a row into a Finding: the mean with its bootstrap interval over prompts, compared to a tolerance.

A finding fails only where the whole interval is past the threshold. Where a probe tests several quantities the interval
is wider (Bonferroni correction). There are no p-values: a significant difference can be too small to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from cai.core.plugin_types import Case, Exhibit, Finding
from cai.core.stats import RESAMPLES, Interval, interval
from cai.core.types import Message

MIN_PROMPTS = 30
"""Prompts below which no threshold is applied: the interval would be unreliable."""
LEVEL = 0.95
AT_ONCE = 200_000
"""Resampled groups in memory at a time."""
EXAMPLES = 5


class Measured(NamedTuple):
    """One row's number; rows of one `group` (a prompt) are correlated and are resampled together."""

    id: str
    group: object
    value: float


class Tolerance(NamedTuple):
    """The range that passes: at most `most`, at least `least`. `neutral` is the value without the fault."""

    most: float
    least: float | None = None
    neutral: float = 0.0


def around(neutral: float, most: float) -> Tolerance:
    """A range that is symmetric about `neutral`."""
    return Tolerance(most, 2 * neutral - most, neutral)


def group(prompt: Sequence[Message]) -> object:
    """The key that rows of one prompt share."""
    return tuple((message.role, message.content) for message in prompt)


def measured_finding(
    probe: str, what: str, rows: Iterable[Measured], limit: Tolerance | None, *, looks: int = 1, note: str = ""
) -> Finding:
    """The mean of `rows` and whether it passes; it is one of `looks` quantities tested together."""
    listed = list(rows)
    shown = means(listed)
    if shown.value is None or limit is None:
        why = note or ("" if listed else "no rows to measure it on")
        most, least = (limit.most, limit.least) if limit else (None, None)
        return Finding(
            probe, what, shown.value, shown.low, shown.high, most, None, n=len(listed), note=why, least=least
        )
    judged = shown if looks == 1 else means(listed, 1 - (1 - LEVEL) / looks)
    passed = _passes(judged, limit) if len({row.group for row in listed}) >= MIN_PROMPTS else None
    notes = [note, "" if passed is not None else f"fewer than {MIN_PROMPTS} prompts: threshold not applied"]
    return Finding(
        probe, what, shown.value, shown.low, shown.high, limit.most, passed, _severity(judged, limit, passed),
        len(listed), _examples(listed, shown.value, limit), "; ".join(filter(None, notes)), limit.least,
    )  # fmt: skip


def means(rows: Sequence[Measured], level: float = LEVEL) -> Interval:
    """The mean over rows, with the percentile bootstrap interval over groups."""
    sums: dict[object, list[float]] = {}
    for row in rows:
        sums.setdefault(row.group, []).append(row.value)
    if len(sums) in (0, 1, len(rows)):
        return interval([row.value for row in rows] if len(sums) != 1 else [_mean(rows)], level=level)
    import numpy as np

    total_G = np.array([sum(values) for values in sums.values()])
    size_G = np.array([len(values) for values in sums.values()])
    rng, at_once = np.random.default_rng(0), max(1, AT_ONCE // len(sums))
    drawn = []
    for start in range(0, RESAMPLES, at_once):
        places_RG = rng.integers(len(sums), size=(min(at_once, RESAMPLES - start), len(sums)))
        drawn.append(total_G[places_RG].sum(1) / size_G[places_RG].sum(1))
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(_mean(rows), float(low), float(high), len(rows))


def _mean(rows: Sequence[Measured]) -> float:
    return sum(row.value for row in rows) / len(rows)


def _passes(found: Interval, limit: Tolerance) -> bool:
    if found.low is None or found.high is None:
        return True
    return found.low <= limit.most and (limit.least is None or found.high >= limit.least)


def _severity(found: Interval, limit: Tolerance, passed: bool | None) -> Literal["info", "minor", "major"]:
    """Major where the whole interval is more than twice as far from neutral as the threshold."""
    if passed is not False or found.low is None or found.high is None:
        return "info"
    over = max(found.low - limit.neutral, limit.neutral - found.high)
    return "major" if over > 2 * (limit.most - limit.neutral) else "minor"


def _examples(rows: Sequence[Measured], value: float, limit: Tolerance) -> tuple[str, ...]:
    """The ids of the rows with the most extreme values in the direction of the mean."""
    sign = -1 if limit.least is not None and value < limit.neutral else 1
    extreme = sorted((row for row in rows if sign * (row.value - limit.neutral) > 0), key=lambda row: -sign * row.value)
    return tuple(dict.fromkeys(row.id for row in extreme))[:EXAMPLES]


def better_first(cases: Iterable[Case]) -> Iterable[Case]:
    """Cases with the better answer first, without ties."""
    for case in cases:
        if case.p > 0.5:
            yield case
        elif case.p < 0.5:
            scores = case.scores and (case.scores[1], case.scores[0])
            yield Case(case.id, case.prompt, case.other, case.answer, 1 - case.p, scores, expect=case.expect)


Feature = Callable[[Case, str], float]
"""A feature of one answer of a case; 1 or 0 for yes or no."""


def minus(exhibit: Exhibit, feature: Feature, names: tuple[str, str]) -> tuple[list[Measured], str]:
    """For each case the feature of one answer minus that of the other; and both means as text."""
    cases = list(better_first(exhibit.cases)) if names[0] == "chosen" else list(exhibit.cases)
    found = [(feature(case, case.answer), feature(case, case.other)) for case in cases]
    rows = [Measured(case.id, group(case.prompt), one - two) for case, (one, two) in zip(cases, found, strict=True)]
    n = max(1, len(found))
    means = sum(one for one, _ in found) / n, sum(two for _, two in found) / n
    return rows, f"{names[0]} {100 * means[0]:.1f} %, {names[1]} {100 * means[1]:.1f} %" if found else ""
