"""Is every row a pair, with a prompt, two answers, and one conversation before them?

Left out on purpose: columns that a trainer would stumble over; `cai export --check` knows those of our own exports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cai.checks.run.finding import EXAMPLES, CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.stats import share
from cai.core.types import Failure


class Options(Knobs):
    format: str = ""
    """How the files hold a pair; detected from the rows where not given."""
    bad_rows: Share = 0
    no_pairs: Share = 0
    no_prompt: Share = 0
    several_turns: Share = 0.05
    empty: Share = 0


KINDS = {
    "bad_rows": Kind("error", "rows that are no pair; a trainer stops there or drops them: fix or delete them"),
    "no_pairs": Kind("error", "files that hold no pair at all: check the path and the format"),
    "no_prompt": Kind("error", "pairs without a prompt, which teach the answer to no question: add it or drop them"),
    "several_turns": Kind(
        "warning",
        "the two conversations part before the last answer, so a user's words are learned too: cut them at the fork",
    ),
    "empty": Kind("error", "one side is blank, which teaches to say nothing or to say anything: drop these pairs"),
}


class SchemaCheck:
    """Rows that are no pair or half of one."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("schema", KINDS, options)
        self._report, self._pairs, self._path = CheckFindings("schema", KINDS, options), 0, ""
        self._bad, self._reasons = RowTally(), list[str]()
        self._files = Counter[str]()
        self._tallies = {name: RowTally() for name in ("no_prompt", "several_turns", "empty")}

    def begin(self, path: str) -> None:
        """Expect pairs of a file."""
        self._path = path
        self._files[path] += 0

    def refuse(self, failure: Failure) -> None:
        """Count a row that is no pair."""
        self._bad.add(failure.id)
        if len(self._reasons) < EXAMPLES:
            self._reasons.append(failure.message[:200])

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair of the file that was begun last."""
        pair = look.pair
        self._pairs += 1
        self._files[self._path] += 1
        found = {
            "no_prompt": not pair.prompt,
            "several_turns": pair.turns > 1,
            "empty": not (pair.chosen.strip() and pair.rejected.strip()),
        }
        for kind in filter(found.get, found):
            self._tallies[kind].add(pair.id)

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        bad, without_pairs = self._bad, [name for name, pairs in self._files.items() if not pairs]
        yield self._report(
            "bad_rows",
            share(bad.rows, self._pairs + bad.rows),
            rows=bad.rows,
            examples=tuple(bad.examples),
            saw=tuple(self._reasons),
        )
        yield self._report(
            "no_pairs",
            share(len(without_pairs), len(self._files)),
            rows=0,
            saw=tuple(f"{name} holds none" for name in without_pairs[:EXAMPLES]),
        )
        for name, tally in self._tallies.items():
            value = share(tally.rows, self._pairs)
            yield self._report(name, value, rows=tally.rows, examples=tuple(tally.examples))


CHECK = Check(open=SchemaCheck, kinds=KINDS, options=Options, about="rows that are no pair, or half of one", order=10)
