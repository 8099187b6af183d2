"""The manifest of a run: where its rows came from, whether its counts add up, what each start cost, what came of it.

This module defines the records, and reads and writes manifest.json. Manifests of earlier versions are read too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from cai.core.stats import Interval
from cai.core.types import Example, Principle
from cai.runs.budget import CallTally
from cai.runs.files import read_record, record_as_json, write_json
from cai.runs.judge_card import JudgeSummary, TemplateName

FILE = "manifest.json"
FIGURES = "figures.json"
Status = Literal["interrupted", "finished"]


@dataclass(frozen=True, slots=True)
class StageCount:
    """Rows of one stage: entered = out + failed."""

    entered: Annotated[int, Field(alias="in")] = 0
    out: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """One execution of a command on a run: when, how it ended, and what it asked and paid."""

    started: str
    """UTC, ISO 8601."""
    seconds: float
    status: Status
    calls: Mapping[str, CallTally] = field(default_factory=dict)
    """By role: writer, critic, judge."""


@dataclass(frozen=True, slots=True)
class DigestedPath:
    """A file or a name, and the SHA-256 of its content."""

    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class PrincipleRecord(Principle):
    """A principle as it was when the run was made, and its digest."""

    digest: str = ""


@dataclass(frozen=True, slots=True)
class ConstitutionRecord:
    """A constitution as it was when the run was made."""

    name: str
    version: str
    digest: str
    principles: tuple[PrincipleRecord, ...] = ()
    about: str = ""
    tags: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class LengthChange:
    """Words of drafts and of final answers: medians, and the paired mean change with its 95 % interval."""

    unit: str
    n: int
    draft_median: float
    final_median: float
    change_mean: float | None
    low: float | None
    high: float | None
    shorter: int
    longer: int


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What became of the rows that a training read: read = used + held_out + left out."""

    read: int
    used: int
    held_out: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    """By reason."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished training came to, as figures.json holds it."""

    method: str
    rows: RowCounts
    seconds: float
    figures: Mapping[str, object] = field(default_factory=dict)
    why_left_out: Mapping[str, str] = field(default_factory=dict)
    """For each reason the first row, and what is wrong with it."""
    name: str = ""
    """In a manifest: the name of its folder under `train/`."""
    start: Annotated[str, Field(alias="from")] = ""
    """In a manifest: what it started from."""

    def as_json(self) -> dict[str, object]:
        """As figures.json holds it."""
        return {key: value for key, value in record_as_json(self).items() if value != ""}

    def write(self, folder: Path) -> None:
        """Write figures.json, whole or not at all. Raises Mistake."""
        write_json(folder / FIGURES, self.as_json())

    @staticmethod
    def read(folder: Path) -> TrainingResult:
        """The result of the training in `folder`. Raises Mistake."""
        return read_record(folder / FIGURES, TrainingResult, "train again into another folder")


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """The answers of the writer and of the trained policy, to prompts that no training saw; words, 95 % intervals."""

    policy: str
    n: int
    why: str = ""
    """Why nothing was compared, where n is 0."""
    models: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    words: Interval | None = None
    """Paired mean change of the length."""
    median_before: float | None = None
    median_after: float | None = None
    shorter: int = 0
    longer: int = 0
    empty: tuple[int, int] | None = None
    """Before and after."""
    repetitive: tuple[int, int] | None = None
    """Before and after."""
    kept: Interval | None = None
    """Share of the new answer's longer words that the old one has."""
    kept_of_another: Interval | None = None
    """The same with the old answer to another prompt: the value expected by chance."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a reviewer asks for first. `calls` and `seconds` are sums over `starts`."""

    cai: str
    name: str
    started: str
    """The last start: UTC, ISO 8601."""
    seed: int
    recipe: DigestedPath
    constitution: ConstitutionRecord
    templates: Mapping[str, TemplateName]
    prompts: DigestedPath
    packages: Mapping[str, str]
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    status: Status = "interrupted"
    counts: Mapping[str, StageCount] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    ties: int = 0
    """Judged pairs of which neither answer is better."""
    """By kind."""
    gates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Hits by gate and action."""
    judge: JudgeSummary | None = None
    calls: Mapping[str, CallTally] = field(default_factory=dict)
    """By role, over all starts."""
    seconds: float = 0.0
    """Over all starts."""
    exports: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Rows by format and split."""
    lengths: LengthChange | None = None
    train: tuple[TrainingResult, ...] = ()
    policy: PolicyChange | None = None
    starts: tuple[Start, ...] = ()

    def as_json(self) -> dict[str, object]:
        """As manifest.json holds it; what there is nothing to say about is left out."""
        kept = ("counts", "failures", "calls", "starts", "seconds", "seed")
        every = record_as_json(self).items()
        return {name: value for name, value in every if name in kept or value not in (None, "", [], {})}

    def write(self, folder: Path) -> None:
        """Write manifest.json, whole or not at all. Raises Mistake."""
        write_json(folder / FILE, self.as_json())

    @staticmethod
    def read(folder: Path) -> Manifest:
        """The manifest in `folder`. Raises Mistake."""
        return read_record(folder / FILE, Manifest, "run the recipe again")

    def all_starts(self) -> tuple[Start, ...]:
        """Every start; a manifest of an earlier version, which kept no list, counts as one."""
        if self.starts or not (self.calls or self.seconds):
            return self.starts
        return (Start(self.started, self.seconds, self.status, self.calls),)

    def total(self, stage: str) -> StageCount:
        """The counts of a stage; zero where the run has not reached it."""
        return self.counts.get(stage, StageCount())


def constitution_record(data: Mapping[str, object]) -> ConstitutionRecord:
    """A constitution's JSON form as its record."""
    return TypeAdapter(ConstitutionRecord).validate_python(data)


def summed_calls(starts: Iterable[Start]) -> dict[str, CallTally]:
    """The calls of several starts, role by role. A cost is None where that of any start with new calls is not known."""
    found: dict[str, CallTally] = {}
    for start in starts:
        for role, calls in start.calls.items():
            found[role] = found[role].plus(calls) if role in found else calls
    return found


def seconds_of(starts: Iterable[Start]) -> float:
    """Seconds of all starts together."""
    return round(sum(start.seconds for start in starts), 2)


def failure_shares(manifest: Manifest, harmless: frozenset[str]) -> dict[str, tuple[int, int]]:
    """Failed and all: of prompts, of the answers where a prompt has several, and of comparisons.

    Kinds in `harmless` and pairs that a gate dropped do not count.
    """
    kinds, counts = Counter(manifest.failures), manifest.counts
    lives = [name for name in counts if name not in ("read", "judge", "pair")]
    read, judged = manifest.total("read"), manifest.total("judge")
    unread = read.failed - sum(kinds[kind] for kind in harmless if kind != "abstained")
    lost, answers = sum(counts[name].failed for name in lives), counts[lives[0]].entered if lives else 0
    several = answers > read.entered
    return {
        "prompts": (unread + (0 if several else lost), read.entered),
        "answers": (lost, answers) if several else (0, 0),
        "comparisons": (judged.failed - kinds["abstained"] * ("abstained" in harmless), judged.entered),
    }
