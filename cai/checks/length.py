"""Are the two answers of a pair of like length, and how far would length alone get?

Length is counted in characters, in which answers are rarely equal and no language needs to know its words. Pairs of
equal length and ties are left out of the accuracy.

Left out on purpose: what a model learns from it. A reward model may see past length; that is for an audit to measure.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from cai.checks.run.finding import EXAMPLES, CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.stats import difference, share


class Options(Knobs):
    max_ratio: Annotated[float, Field(gt=1)] = 5.0
    """Length of one side over the other's from which `length_ratio` counts a pair."""
    length_ratio: Share = 0.25
    length_skew: Share = 0.1
    always_longer: Annotated[float, Field(ge=0, le=0.5)] = 0.1


KINDS = {
    "length_ratio": Kind(
        "warning",
        "one answer is many times as long as the other, which outweighs what it says: pair like lengths",
        tendency=True,
    ),
    "length_skew": Kind(
        "warning",
        "where one answer is many times as long it is mostly the same side, and length alone decides these pairs: pair"
        " like lengths",
        tendency=True,
        neutral=0.0,
    ),
    "always_longer": Kind(
        "warning",
        "preferring the longer answer (below one half: the shorter) gets so many pairs right, and a model may learn"
        " only that: balance lengths, or normalise by length in training",
        tendency=True,
        neutral=0.5,
    ),
}


class LengthCheck:
    """Pairs of very unlike length, and the accuracy of always preferring the longer answer."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("length", KINDS, options)
        self._options, self._rows = options, 0
        self._longer, self._shorter = RowTally(), RowTally()
        self._much_longer, self._much_shorter = RowTally(), RowTally()
        self._ratios = array("f")

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        self._rows += 1
        pair = look.pair
        if not pair.chosen or not pair.rejected:
            return  # `empty` says so; a ratio to nothing says nothing
        ratio = len(pair.chosen) / len(pair.rejected)
        self._ratios.append(ratio)
        if max(ratio, 1 / ratio) > self._options.max_ratio and not pair.tie:
            (self._much_longer if ratio > 1 else self._much_shorter).add(pair.id)
        if ratio != 1 and not pair.tie:
            (self._longer if ratio > 1 else self._shorter).add(pair.id)

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        yield from self._extremes()
        longer, shorter = self._longer, self._shorter
        value = share(longer.rows, longer.rows + shorter.rows)
        more = longer if longer.rows >= shorter.rows else shorter
        said = f"the chosen answer is longer in {longer.rows}, shorter in {shorter.rows}, median ratio {self._median()}"
        yield self._report("always_longer", value, rows=more.rows, examples=tuple(more.examples), saw=(said,))

    def _extremes(self) -> Iterator[Finding]:
        up, down = self._much_longer, self._much_shorter
        times = f"over {self._options.max_ratio:g} times as long"
        saw = (f"chosen {times} in {up.rows}, rejected in {down.rows}",) if up.rows + down.rows else ()
        examples = (*up.examples, *down.examples)[:EXAMPLES]
        rows, more = up.rows + down.rows, up if up.rows >= down.rows else down
        value = share(rows, self._rows)
        yield self._report("length_ratio", value, rows=rows, examples=examples, saw=saw)
        value = difference(up.rows, down.rows, self._rows)
        yield self._report("length_skew", value, rows=more.rows, examples=tuple(more.examples), saw=saw)

    def _median(self) -> str:
        import numpy as np

        return f"{np.median(self._ratios):.2f}" if self._ratios else "unknown"


CHECK = Check(open=LengthCheck, kinds=KINDS, options=Options, about="lengths of the two answers", order=30)
