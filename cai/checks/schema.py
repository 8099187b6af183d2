"""Is every row a pair, with a prompt, two answers, and one conversation before them?

Left out on purpose: columns that a trainer would stumble over; `cai export --check` knows those of our own exports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cai.checks.run.finding import EXAMPLES, Finding, RowTally, check_finding
from cai.checks.run.options import Options
from cai.core.stats import share
from cai.core.types import Failure
from cai.data.pairs import Preference


class Schema:
    """Rows that are no pair or half of one."""

    def __init__(self, options: Options) -> None:
        self._options, self._pairs = options, 0
        self._bad, self._reasons = RowTally(), list[str]()
        self._files = Counter[str]()
        self._tallies = {name: RowTally() for name in ("no_prompt", "several_turns", "empty")}

    def open(self, name: str) -> None:
        """Expect pairs of the file `name`."""
        self._files[name] += 0

    def refuse(self, failure: Failure) -> None:
        """Count a row that is no pair."""
        self._bad.add(failure.id)
        if len(self._reasons) < EXAMPLES:
            self._reasons.append(failure.message[:200])

    def add(self, pair: Preference, name: str) -> None:
        """Look at one pair of the file `name`."""
        self._pairs += 1
        self._files[name] += 1
        found = {
            "no_prompt": not pair.prompt,
            "several_turns": pair.turns > 1,
            "empty": not (pair.chosen.strip() and pair.rejected.strip()),
        }
        for kind in filter(found.get, found):
            self._tallies[kind].add(pair.id)

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        bad, barren = self._bad, [name for name, pairs in self._files.items() if not pairs]
        yield check_finding(
            "bad_rows",
            share(bad.rows, self._pairs + bad.rows),
            self._options,
            rows=bad.rows,
            examples=tuple(bad.examples),
            saw=tuple(self._reasons),
        )
        yield check_finding(
            "no_pairs",
            share(len(barren), len(self._files)),
            self._options,
            rows=0,
            saw=tuple(f"{name} holds none" for name in barren[:EXAMPLES]),
        )
        for name, tally in self._tallies.items():
            value = share(tally.rows, self._pairs)
            yield check_finding(name, value, self._options, rows=tally.rows, examples=tuple(tally.examples))
