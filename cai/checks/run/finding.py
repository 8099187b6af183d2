"""How what a check counted becomes a finding, held against its threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cai.core.config import Knobs
from cai.core.plugin_types import Finding, Kind
from cai.core.stats import Interval

EXAMPLES = 5
ENOUGH = 30
"""Pairs below which a tendency is not judged: in so few, chance alone would look like one."""


class CheckFindings:
    """Makes the findings of one check; the threshold of a kind is the option of the same name."""

    def __init__(self, check: str, kinds: Mapping[str, Kind], options: Knobs) -> None:
        self._check, self._kinds, self._options = check, kinds, options

    def __call__(
        self, name: str, value: Interval, *, rows: int, examples: tuple[str, ...] = (), saw: tuple[str, ...] = ()
    ) -> Finding:
        """The finding of kind `name`: its value, the rows that show it, some of their ids, and what was seen."""
        kind, threshold = self._kinds[name], float(getattr(self._options, name))
        passed = _passes(value, threshold, kind)
        return Finding(
            probe=self._check,
            what=name,
            value=value.value,
            low=value.low,
            high=value.high,
            threshold=threshold if kind.neutral is None else kind.neutral + threshold,
            least=None if kind.neutral is None else kind.neutral - threshold,
            passed=passed,
            severity="info" if passed else "major" if kind.severity == "error" else "minor",
            n=value.n,
            rows=rows,
            examples=examples if rows else (),
            saw=saw,
            meaning=kind.meaning,
        )


def _passes(value: Interval, threshold: float, kind: Kind) -> bool:
    if value.value is None or (kind.tendency and value.n < ENOUGH):
        return True
    if kind.neutral is None:
        return abs(value.value) <= threshold
    if value.low is None or value.high is None:
        return True
    # large, and not by chance: the interval has to keep clear of neutral, by half of what is allowed
    nearest = max(value.low - kind.neutral, kind.neutral - value.high)
    return abs(value.value - kind.neutral) <= threshold or nearest <= threshold / 2


@dataclass(slots=True)
class RowTally:
    """Rows that show something, with the first of their ids."""

    rows: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, id: str) -> None:
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(id)
