"""Does one side refuse more often than the other?

By the opening words of an answer, as `refusal` knows them. Left out on purpose: whether refusing was right.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.checks.run.finding import CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.refusals import refuses
from cai.core.stats import Interval, difference, share


class Options(Knobs):
    refusals: Share = 0.1


KINDS = {
    "refusals": Kind(
        "warning",
        "one side refuses more often than the other, so refusing (or never refusing) is learned: add pairs of the"
        " other kind",
        tendency=True,
        neutral=0.0,
    ),
}


class RefusalCheck:
    """Share of refusals among chosen minus share among rejected; ties are left out."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("refusals", KINDS, options)
        self._options, self._rows, self._both = options, 0, 0
        self._only_chosen, self._only_rejected = RowTally(), RowTally()

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        if look.pair.tie:
            return
        self._rows += 1
        match bool(refuses(look.pair.chosen)), bool(refuses(look.pair.rejected)):
            case True, True:
                self._both += 1
            case True, False:
                self._only_chosen.add(look.pair.id)
            case False, True:
                self._only_rejected.add(look.pair.id)

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        chosen, rejected = self._only_chosen, self._only_rejected
        more = chosen if chosen.rows >= rejected.rows else rejected
        sides = {"chosen": chosen.rows + self._both, "rejected": rejected.rows + self._both}
        saw = tuple(
            f"{name} {_percent(share(rows, self._rows))}" for name, rows in sides.items() if any(sides.values())
        )
        value = difference(chosen.rows, rejected.rows, self._rows)
        yield self._report("refusals", value, rows=more.rows, examples=tuple(more.examples), saw=saw)


def _percent(value: Interval) -> str:
    if value.value is None or value.low is None or value.high is None:
        return "unknown"
    return f"{100 * value.value:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"


CHECK = Check(open=RefusalCheck, kinds=KINDS, options=Options, about="refusals on one side", order=40)
