"""The settings and the rounds of `cai iterate`, as loop.json and round.json hold them.

This module defines the records, and reads and writes both files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cai.core.plugin_types import Finding
from cai.runs.files import read_record, record_as_json, write_json
from cai.runs.manifest import StageCount

LOOP = "loop.json"
ROUND = "round.json"


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What a loop was started with. The number of rounds is not part of it: a loop can be extended."""

    recipe: Mapping[str, object]
    loop: Mapping[str, object]
    pairs: Mapping[str, str]
    """Digests of the files of pairs, by path."""

    def write(self, folder: Path) -> None:
        """Write loop.json, whole or not at all. Raises Mistake."""
        write_json(folder / LOOP, record_as_json(self))

    @staticmethod
    def read(folder: Path) -> LoopSettings | None:
        """The settings of the loop in `folder`; None where no loop was started. Raises Mistake."""
        if not (folder / LOOP).is_file():
            return None
        return read_record(folder / LOOP, LoopSettings, "choose another --name, or remove the folder")


@dataclass(frozen=True, slots=True)
class RoundRedTeam:
    """What the red team found in a round's reward model."""

    rows: int
    """Edited answers with a higher reward."""
    note: str = ""
    """Why nothing was searched."""
    answers: int = 0
    scored: int = 0
    chain: tuple[str, ...] = ()
    held_out: Finding | None = None


@dataclass(frozen=True, slots=True)
class RoundFinding:
    """A finding of the audit that is past its threshold."""

    probe: str
    what: str
    value: float | None
    severity: Literal["info", "minor", "major"]
    inherited: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The result of one round."""

    round: int
    sampled_from: str
    """The model that the round's answers were sampled from."""
    labels: Mapping[str, StageCount] = field(default_factory=dict)
    """Counts of the labelling run by stage."""
    old_pairs: int = 0
    new_pairs: int = 0
    file_pairs: int = 0
    redteam_pairs: int = 0
    reward: Mapping[str, object] = field(default_factory=dict)
    """Figures of the reward model's training."""
    policy: Mapping[str, object] = field(default_factory=dict)
    """Figures of the policy's training."""
    redteam: RoundRedTeam | None = None
    findings: tuple[RoundFinding, ...] = ()
    stopped: str = ""
    """Why the loop ends here; empty where it continues."""

    def as_json(self) -> dict[str, object]:
        """As round.json holds it."""
        return record_as_json(self)

    def write(self, folder: Path) -> None:
        """Write round.json, whole or not at all. Raises Mistake."""
        write_json(folder / ROUND, self.as_json())

    @staticmethod
    def read(folder: Path) -> RoundResult | None:
        """The result of the round in `folder`; None where it is not finished. Raises Mistake."""
        if not (folder / ROUND).is_file():
            return None
        return read_record(folder / ROUND, RoundResult, "remove this round's folder and run the command again")
