"""What is known about a judge: figures on sets of pairs, with intervals, as the manifest and judge_card.json hold them.

This module defines the records, and reads and writes judge_card.json. `cai.judges.panel` computes the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cai.core.calibration import Bin, Scaling
from cai.core.stats import Interval
from cai.runs.budget import CallTally
from cai.runs.files import read_record, record_as_json, write_json

FILE = "judge_card.json"


@dataclass(frozen=True, slots=True)
class PositionFigures:
    """What being shown first does to the verdicts of a judge."""

    prefers_first: Interval | None = None
    """How often the answer shown first wins."""
    bias: Interval | None = None
    """What being shown first adds to p."""
    flips: Interval | None = None
    """How often the two orders prefer different answers."""
    right_when_first: Interval | None = None
    right_when_second: Interval | None = None


@dataclass(frozen=True, slots=True)
class LengthFigures:
    """What length does to the verdicts of a judge."""

    prefers_longer: Interval | None = None


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How far a judge's probabilities can be trusted. `scaling` is a temperature fitted on one half of the pairs."""

    ece: float
    brier: Interval
    nll: Interval
    bins: tuple[Bin, ...] = ()
    scaling: Scaling | None = None


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """The figures of a judge on one set of pairs. Those that need gold labels are None or empty without them."""

    n: int
    """Pairs with a verdict or an abstention."""
    abstained: int
    ties: Interval | None = None
    mass: Interval | None = None
    """Probability that the model gave to all options together."""
    disagreement: Interval | None = None
    """Between several judges: largest p minus smallest."""
    position: PositionFigures | None = None
    length: LengthFigures | None = None
    self_preference: Interval | None = None
    accuracy: Interval | None = None
    by_category: Mapping[str, Interval | None] = field(default_factory=dict)
    controls: Mapping[str, Interval | None] = field(default_factory=dict)
    """Accuracy of judges that cost nothing: always_longer, always_first, no_principle, one_order."""
    gains: Mapping[str, Interval | None] = field(default_factory=dict)
    """Accuracy above each control, paired by pair."""
    calibration: CalibrationFigures | None = None
    pairs: int | None = None
    """Rows of the gold file that were to be judged."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Rows of the gold file without a verdict, by kind."""
    judges: tuple[JudgeFigures, ...] = ()
    """Each judge by itself, where there are several."""
    judge: str = ""
    """Method and model, in `judges`."""
    file: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class TemplateName:
    """A template and the SHA-256 of its text."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class JudgeDescription:
    """One judge of a recipe: the way to ask, who is asked, and in which words."""

    method: str
    model: str
    template: TemplateName
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """Who judges and how; in a manifest also the figures of the run's labels and of each gold file."""

    by: tuple[JudgeDescription, ...]
    combine: str
    orders: str
    principles: int
    examples: int
    labels: JudgeFigures | None = None
    gold: Mapping[str, JudgeFigures] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """In a judge card: the identity of each model that was asked, by role."""
    constitution: Mapping[str, str] = field(default_factory=dict)
    """In a judge card: name, version and digest."""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class LabelCost:
    """What labels took: calls and tokens, those of answers in the journal included; cost and seconds of this start."""

    labels: int
    calls_per_label: float | None
    tokens_per_label: float | None
    new_calls: int
    new_cost: float | None
    seconds: float
    models: tuple[CallTally, ...] = ()


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """What `cai judge-card` measured: the judge, its figures on each gold file by name, and what that cost."""

    judge: JudgeSummary
    gold: Mapping[str, JudgeFigures]
    cost: LabelCost

    def as_json(self) -> dict[str, object]:
        """As judge_card.json holds it."""
        return record_as_json(self)

    def write(self, folder: Path) -> None:
        """Write judge_card.json, whole or not at all. Raises Mistake."""
        write_json(folder / FILE, self.as_json())

    @staticmethod
    def read(folder: Path) -> JudgeCard:
        """The card in `folder`. Raises Mistake."""
        return read_record(folder / FILE, JudgeCard, "make one with `cai judge-card`")
