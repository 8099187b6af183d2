"""How far a run is; the pipeline writes it, the command line shows it.

Left out on purpose: a clock. Whoever shows it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cai.runs.budget import CallTally


@dataclass
class Progress:
    """A run's stage, what is done of it, and what each model was asked."""

    stage: str = "opening the model"
    total: int | None = None
    done: int = 0
    failed: int = 0
    tallies: dict[str, CallTally] = field(default_factory=dict)
    status: Callable[[], Mapping[str, float]] = dict
    """The state of the models: requests in flight, the limit found, how often a server answered 429."""
    note: Callable[[str], None] = lambda text: None
    """Takes a line that the person should read, such as what a finished run's rows are replaced for."""

    def begin(self, stage: str, total: int | None = None) -> None:
        """The next stage."""
        self.stage, self.total, self.done = stage, total, 0

    def tick(self) -> None:
        """One more is done."""
        self.done += 1

    def scored(self, more: int) -> None:
        """So many more answers have their reward."""
        if self.stage != "scores":
            self.begin("scores")
        self.done += more

    @property
    def found(self) -> int:
        """Calls that the journal had the answer to."""
        return sum(tally.found for tally in self.tallies.values())
