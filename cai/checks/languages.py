"""Are the two answers of a pair in one language?

Left out on purpose: the prompt's language, which a request to translate changes, and texts too short to tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cai.checks.run.finding import CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.language import language
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.stats import share

SHOWN = 3
"""Languages of a side that are named."""


class Options(Knobs):
    language: Share = 0.02


KINDS = {
    "language": Kind("warning", "the two answers are in different languages, and the language is learned: drop them"),
}


class LanguageCheck:
    """Pairs in two languages, and the mix on each side."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("languages", KINDS, options)
        self._options, self._tally = options, RowTally()
        self._rows = 0
        self._mix = {"chosen": Counter[str](), "rejected": Counter[str]()}

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        self._rows += 1
        chosen, rejected = language(look.pair.chosen), language(look.pair.rejected)
        for side, code in (("chosen", chosen), ("rejected", rejected)):
            self._mix[side].update([code] if code else [])
        if chosen and rejected and chosen != rejected:
            self._tally.add(look.pair.id)

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        several = len(self._mix["chosen"] | self._mix["rejected"]) > 1
        saw = tuple(_said(side, mix) for side, mix in self._mix.items() if several)
        value, tally = share(self._tally.rows, self._rows), self._tally
        yield self._report("language", value, rows=tally.rows, examples=tuple(tally.examples), saw=saw)


def _said(side: str, mix: Counter[str]) -> str:
    known = mix.total()
    return f"{side} " + ", ".join(f"{code} {100 * count / known:.1f} %" for code, count in mix.most_common(SHOWN))


CHECK = Check(open=LanguageCheck, kinds=KINDS, options=Options, about="languages of the two answers", order=70)
