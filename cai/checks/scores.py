"""Where rows carry scores or probabilities: do they agree with the pair, and is any far from all the others?

Far is beyond three interquartile ranges from the quartiles (Tukey's outer fence), of the scores or of the margins:
UltraFeedback's 10 that was a 1 is no unusual score, but the margin that it makes is.

Left out on purpose: mending a score. What a judge meant is in its own words.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from cai.checks.run.finding import EXAMPLES, CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.stats import share

FENCE = 3.0
"""Interquartile ranges."""


class Options(Knobs):
    inverted_scores: Share = 0
    score_outliers: Share = 0.01


KINDS = {
    "inverted_scores": Kind(
        "error", "the row's own scores prefer the rejected answer: swap the sides, or fix what parsed the scores"
    ),
    "score_outliers": Kind(
        "warning", "scores far from all others, as of a 10 that was a 1: look at the raw verdicts of these rows"
    ),
}


class ScoreCheck:
    """Rows whose scores prefer the other side, or stand far out. Without scores there are no findings."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("scores", KINDS, options)
        self._options, self._inverted = options, RowTally()
        self._chosen, self._rejected, self._margins = array("d"), array("d"), array("d")
        self._scored, self._marked = list[tuple[int, str]](), list[tuple[int, str]]()
        """Number and id of the rows that have scores, and of those that have a margin; several rows may share an id."""
        self._rows = 0

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        pair = look.pair
        margin = pair.margin if pair.p_chosen is None else pair.p_chosen - 0.5
        if margin is None:
            return
        self._rows += 1
        if margin < 0:
            self._inverted.add(pair.id)
        if pair.margin is not None:
            self._margins.append(pair.margin)
            self._marked.append((self._rows, pair.id))
        if pair.scores is not None:
            self._chosen.append(pair.scores[0])
            self._rejected.append(pair.scores[1])
            self._scored.append((self._rows, pair.id))

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        if not self._rows:
            return
        inverted = self._inverted
        value = share(inverted.rows, self._rows)
        yield self._report("inverted_scores", value, rows=inverted.rows, examples=tuple(inverted.examples))
        far = self._far()
        shown = list(far.items())[:EXAMPLES]
        examples, saw = tuple(id for (_, id), _ in shown), tuple(what for _, what in shown)
        value = share(len(far), self._rows)
        yield self._report("score_outliers", value, rows=len(far), examples=examples, saw=saw)

    def _far(self) -> dict[tuple[int, str], str]:
        """The rows that stand out, and by what."""
        low, high = _fence([*self._chosen, *self._rejected])
        far = {
            row: f"{row[1]} has the scores {one:g} and {other:g}"
            for row, one, other in zip(self._scored, self._chosen, self._rejected, strict=True)
            if not (low <= one <= high and low <= other <= high)
        }
        low, high = _fence(self._margins)
        more = zip(self._marked, self._margins, strict=True)
        return far | {row: f"{row[1]} has a margin of {margin:g}" for row, margin in more if not low <= margin <= high}


def _fence(values: Sequence[float]) -> tuple[float, float]:
    """Between which values nothing stands out. Where most values are equal there is no telling."""
    import numpy as np

    if not values:
        return 0.0, 0.0
    low, high = np.quantile(np.asarray(values), [0.25, 0.75])
    if low == high:
        return float("-inf"), float("inf")
    return float(low - FENCE * (high - low)), float(high + FENCE * (high - low))


CHECK = Check(open=ScoreCheck, kinds=KINDS, options=Options, about="scores that the rows carry", order=90)
