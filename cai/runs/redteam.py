"""The results of red-team runs, as `cai redteam --json` prints them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cai.core.plugin_types import Finding
from cai.core.stats import Interval
from cai.runs.files import record_as_json


@dataclass(frozen=True, slots=True)
class ChainCount:
    """A chain of edits, the number of answers for which it is the best one, and its mean gain on them."""

    chain: str
    answers: int
    gain: float


@dataclass(frozen=True, slots=True)
class RewardRedTeam:
    """The result of a search for edits that raise a reward."""

    answers: int
    scored: int
    single: tuple[Finding, ...] = ()
    """Each edit by itself."""
    chain: tuple[str, ...] = ()
    held_out: Finding | None = None
    """The gain of `chain` on prompts that it was not selected on."""
    chains: tuple[ChainCount, ...] = ()

    def as_json(self) -> dict[str, object]:
        """As `cai redteam reward --json` prints it."""
        return record_as_json(self)


@dataclass(frozen=True, slots=True)
class SuccessShares:
    """Shares of attempts: not refused, also on the subject, and judged to give what was asked for."""

    answered: Interval
    on_subject: Interval
    judged: Interval | None = None


@dataclass(frozen=True, slots=True)
class PolicyRedTeam:
    """The result of asking a policy in wrappers."""

    prompts: int
    lost: Mapping[str, int]
    """Failed calls by kind."""
    detector: str
    """Measured accuracy of the refusal detector."""
    judge: str
    wrappers: Mapping[str, SuccessShares] = field(default_factory=dict)
    over_bare: Mapping[str, Interval] = field(default_factory=dict)
    """Answered in this wrapper minus answered without a wrapper, paired by prompt."""
    categories: Mapping[str, SuccessShares] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """As `cai redteam policy --json` prints it."""
        return record_as_json(self)
