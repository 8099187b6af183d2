"""Do answers of one side begin alike, or carry phrases that the other side has not?

Looks at a random sample of rows where there are many: the texts of all of them would have to be held.

Left out on purpose: a list of phrases to look for. What is boilerplate in a data set shows in the data set.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.checks.run.finding import EXAMPLES, CheckFindings
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.phrases import SUPPORT, AnswerWindows, Phrase, WindowSample, answer_windows, find_phrases
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.stats import Interval, share

SAMPLE = 2000
"""Rows that are looked at."""
OPENING = 3
"""Words of an opening."""


class Options(Knobs):
    openings: Share = 0.2
    boilerplate: Share = 0.1


KINDS = {
    "openings": Kind(
        "warning",
        "many answers of one side begin with the same words: vary how they are generated, or strip them",
        tendency=True,
    ),
    "boilerplate": Kind(
        "warning",
        "a phrase tells the sides apart and can be learned in place of the preference: strip or balance it",
        tendency=True,
        neutral=0.0,
    ),
}


class WordingCheck:
    """The commonest opening of a side, and the phrases that tell the sides apart."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("wording", KINDS, options)
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
        return self._report(
            "openings",
            share(len(having), len(couples)),
            rows=len(having),
            examples=tuple(made.id for made in having[:EXAMPLES]),
            saw=tuple(f"{' '.join(start)!r} in {len(common[side, start])} {side}" for side, start in most),
        )

    def _boilerplate(self, couples: list[AnswerWindows]) -> Finding:
        found = find_phrases(couples, most=EXAMPLES)
        strongest = max(found, key=lambda phrase: abs(phrase.lift.value or 0), default=None)
        having = [made.id for made in couples if strongest and strongest.distinguishes(made)]
        return self._report(
            "boilerplate",
            strongest.lift if strongest else Interval(0.0, None, None, len(couples)),
            rows=len(having),
            examples=tuple(having[:EXAMPLES]),
            saw=tuple(map(_said, found)),
        )


def _said(phrase: Phrase) -> str:
    chosen, rejected = f"{100 * phrase.after:.1f} % of chosen", f"{100 * phrase.before:.1f} % of rejected"
    return f"{phrase.text!r} in {chosen}, {rejected}, {phrase.prompts} prompts"


CHECK = Check(open=WordingCheck, kinds=KINDS, options=Options, about="openings and phrases of one side", order=50)
