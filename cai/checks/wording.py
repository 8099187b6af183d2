"""Do answers of one side begin alike, or carry phrases that the other side has not?

Looks at a random sample of rows where there are many: the texts of all of them would have to be held.

Left out on purpose: a list of phrases to look for. What is boilerplate in a data set shows in the data set.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.checks.run.finding import EXAMPLES, Finding, check_finding
from cai.checks.run.fingerprints import PairFingerprint
from cai.checks.run.options import Options
from cai.core.phrases import SUPPORT, AnswerWindows, Phrase, WindowSample, answer_windows, find_phrases
from cai.core.stats import Interval, share

SAMPLE = 2000
"""Rows that are looked at."""
OPENING = 3
"""Words of an opening."""


class Wording:
    """The commonest opening of a side, and the phrases that tell the sides apart."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._sample = WindowSample(SAMPLE)

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        if not look.pair.tie and self._sample.wants(look.row):
            self._sample.add(look.row, answer_windows(look.pair.id, look.prompt, look.pair.rejected, look.pair.chosen))

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        couples = list(self._sample)
        yield self._openings(couples)
        yield self._boilerplate(couples)

    def _openings(self, couples: list[AnswerWindows]) -> Finding:
        starts: dict[tuple[str, tuple[str, ...]], list[AnswerWindows]] = {}
        for made in couples:
            for side, (head, _) in (("chosen", made.after), ("rejected", made.before)):
                if len(head) >= OPENING:
                    starts.setdefault((side, head[:OPENING]), []).append(made)
        common = {start: having for start, having in starts.items() if len({made.prompt for made in having}) >= SUPPORT}
        most = sorted(common, key=lambda start: (-len(common[start]), start))[:EXAMPLES]
        having = common[most[0]] if most else []
        return check_finding(
            "openings",
            share(len(having), len(couples)),
            self._options,
            rows=len(having),
            examples=tuple(made.id for made in having[:EXAMPLES]),
            saw=tuple(f"{' '.join(start)!r} in {len(common[side, start])} {side}" for side, start in most),
        )

    def _boilerplate(self, couples: list[AnswerWindows]) -> Finding:
        found = find_phrases(couples, most=EXAMPLES)
        strongest = max(found, key=lambda phrase: abs(phrase.lift.value or 0), default=None)
        having = [made.id for made in couples if strongest and strongest.distinguishes(made)]
        return check_finding(
            "boilerplate",
            strongest.lift if strongest else Interval(0.0, None, None, len(couples)),
            self._options,
            rows=len(having),
            examples=tuple(having[:EXAMPLES]),
            saw=tuple(map(_said, found)),
        )


def _said(phrase: Phrase) -> str:
    chosen, rejected = f"{100 * phrase.after:.1f} % of chosen", f"{100 * phrase.before:.1f} % of rejected"
    return f"{phrase.text!r} in {chosen}, {rejected}, {phrase.prompts} prompts"
