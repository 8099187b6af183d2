"""Is reasoning marked alike on both sides, and are no marks of turns left in an answer?

A pair counts where one side has a think block and the other has none, where one is blank or is not closed, or where the
line breaks around the marks differ: a model tells all of these apart more easily than a good answer from a bad one.

Left out on purpose: what is inside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from cai.checks.run.finding import CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.reasoning import CLOSING, OPENING, leftover_mark
from cai.core.stats import share

_OPEN = re.compile(OPENING)
_CLOSE = re.compile(CLOSING)
_MARGIN = 4
"""Blank characters beside a mark that are compared."""


class Options(Knobs):
    think_blocks: Share = 0
    turn_tokens: Share = 0


KINDS = {
    "think_blocks": Kind(
        "error", "reasoning is marked otherwise on one side than on the other, and the marks are learned: strip it"
    ),
    "turn_tokens": Kind(
        "error", "tokens that end a turn, or role headers, are left in an answer, and the model learns to write them"
    ),
}


class ThinkingCheck:
    """Pairs whose two sides mark reasoning differently."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("thinking", KINDS, options)
        self._options, self._rows, self._tally = options, 0, RowTally()
        self._forms = Counter[tuple[str, str]]()
        self._left, self._tokens = RowTally(), Counter[str]()

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        self._rows += 1
        chosen, rejected = form(look.pair.chosen), form(look.pair.rejected)
        if chosen != rejected:
            self._tally.add(look.pair.id)
            self._forms[chosen, rejected] += 1
        left = {leftover_mark(text, thoughts=False) for text in (look.pair.chosen, look.pair.rejected)} - {None}
        if left:
            self._left.add(look.pair.id)
            self._tokens.update(filter(None, left))

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        saw = tuple(
            f"chosen {chosen!r}, rejected {rejected!r} in {rows}"
            for (chosen, rejected), rows in self._forms.most_common(3)
        )
        value, tally = share(self._tally.rows, self._rows), self._tally
        yield self._report("think_blocks", value, rows=tally.rows, examples=tuple(tally.examples), saw=saw)
        value, tally = share(self._left.rows, self._rows), self._left
        saw = tuple(f"{token!r} in {rows}" for token, rows in self._tokens.most_common(3))
        yield self._report("turn_tokens", value, rows=tally.rows, examples=tuple(tally.examples), saw=saw)


def form(text: str) -> str:
    r"""How reasoning is marked in a text: `<think>\n...\n</think>\n\n`; empty where it is not marked."""
    opening, closing = _OPEN.search(text), _CLOSE.search(text)
    if not opening and not closing:
        return ""
    start, end = opening.end() if opening else 0, closing.start() if closing else len(text)
    inner, after = text[start:end], text[closing.end() :] if closing else ""
    lead = inner[: len(inner) - len(inner.lstrip())][:_MARGIN]
    trail = inner[len(inner.rstrip()) :][-_MARGIN:] if inner.strip() else ""
    gap = after[: len(after) - len(after.lstrip())][:_MARGIN]
    said = "..." if inner.strip() else ""
    return f"{opening[0] if opening else ''}{lead}{said}{trail}{closing[0] if closing else ''}{gap}"


CHECK = Check(open=ThinkingCheck, kinds=KINDS, options=Options, about="how reasoning and turns are marked", order=60)
