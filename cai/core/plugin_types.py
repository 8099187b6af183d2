"""The record types of the plug-in folders: the record that ends each file, and its input."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from cai.core.types import Action, Finish, Message, Model, Opinion, Pair, Prompt, Trace


@dataclass(frozen=True, slots=True)
class Backend:
    """The record that ends a file in `backends/`: how to open a model there."""

    options: type
    """A pydantic class of this backend's own options, validated before anything is opened."""
    open: Callable[..., Model]
    """`open(options) -> Model`; heavy imports happen inside."""
    about: str


GateStage = Literal["draft", "revision", "pair"]


@dataclass(frozen=True, slots=True)
class GateInput:
    """A text and what it came from.

    Of a revision `before` is the answer that `after` would replace; of a draft the last user turn; of a pair `before`
    is the rejected answer and `after` the chosen one.
    """

    before: str
    after: str
    finish: Finish
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Gate:
    """The record that ends a file in `gates/`: a check of each text that passes from one step to the next."""

    look: Callable[..., str | None]
    """`look(seen)`, or `look(seen, options)` where there are options -> what was noticed, or None."""
    about: str
    on: tuple[GateStage, ...] = ("revision",)
    """The texts it looks at. Drafts are only tagged, whatever the action."""
    default: Action | None = "tag"
    """The action where a recipe names none; None: switched off until a recipe names it."""
    options: type | None = None
    """A pydantic class of this gate's own settings."""
    repair: Callable[[GateInput], tuple[str, str]] | None = None
    """`repair(seen) -> (text, what was removed)`, for the action `repair`; the latter is empty where nothing was."""
    order: int = 100
    """Gates run in ascending order, those of equal order by name."""


class Kind(NamedTuple):
    """A kind of finding that a check can make."""

    severity: Literal["error", "warning"]
    """`error`: a trainer learns nothing or something wrong. `warning`: it may learn what was not meant."""
    meaning: str
    """What it means, and what to do about it."""
    tendency: bool = False
    """Whether it is a property of many rows, which a few rows cannot show, and not a fault of each."""
    neutral: float | None = None
    """For a tendency that can go either way, what a set without it has."""


Seen = TypeVar("Seen", contravariant=True)


class Checker(Protocol[Seen]):
    """A check that is under way: it looks at every pair once, and says at the end what it found."""

    def add(self, pair: Seen) -> None:
        """Look at one pair (a `PairFingerprint`: the pair and the identities of its texts)."""
        ...

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """The record that ends a file in `checks/`: something that can be wrong with a set of preference pairs."""

    open: Callable[..., Checker[Any]]
    """`open(options) -> Checker`."""
    kinds: Mapping[str, Kind]
    """What it can find, by name."""
    options: type
    """A pydantic class (`Knobs`): a threshold for each kind, under its name, and this check's own settings."""
    about: str
    order: int = 100
    """Findings are listed by ascending order, those of one number by name."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The record that ends a file in `judges/`: one way to have a model say which of two answers is better."""

    options: type
    """A pydantic class of this judge's own settings."""
    judge: Callable[..., Awaitable[Opinion]]
    """`judge(comparison, context, options) -> Opinion`. Raises CallFailed, also where the answer cannot be parsed."""
    about: str
    asks: str = "judge"
    """The folder of `prompts/` that holds its templates."""
    offers: frozenset[str] = frozenset({"conversation", "first", "second", "principle", "examples", "menu"})
    """The variables that its templates may declare: the keys of what it renders them with."""
    prompts: Path | None = None
    """A folder with templates of its own (`small.j2`, `large.j2`), for a judge of another package."""
    order: bool = True
    """Whether it sees both answers at once, so that which is shown first can matter."""
    needs: Literal["compare", "checks"] = "compare"
    """The field of a principle that it uses."""
    calls: Callable[..., int] = lambda options, principle: 1
    """Model calls per comparison."""


Column = Literal["messages", "message", "text", "texts", "bool", "int", "float"]
"""What a column of an export holds; `message` is a role and content, `messages` a list of them, `texts` of text."""


@dataclass(frozen=True, slots=True)
class Export:
    """The input of an exporter: rows, and what made them."""

    traces: Callable[[], Iterable[Trace]]
    pairs: Callable[[], Iterable[Pair]]
    split: Callable[[Prompt], str]
    """Names the split of a prompt; leak-free, because equal conversations get equal names."""
    constitution: str
    """Digest of the constitution that the rows were made by."""


@dataclass(frozen=True, slots=True)
class Format:
    """The record that ends a file in `export/`: rows of a run -> rows that a trainer reads."""

    rows: Callable[[Export], Iterable[tuple[str, dict[str, object]]]]
    """Yields (split, row); rows are JSON values, each with exactly the columns below."""
    columns: Mapping[str, Column]
    """The schema, also of an empty export."""
    about: str
    consumer: str = ""
    """The trainer or tool that reads it without a change."""
    file: Literal["parquet", "jsonl"] = "parquet"
    beside: Callable[[Sequence[str]], Mapping[str, str]] | None = None
    """Further files that its reader needs: file name -> text, from the names of the splits."""


@dataclass(frozen=True, slots=True)
class Job:
    """The input of a training method, apart from its own options."""

    model: Path
    """The folder that the weights to start from are loaded from; also the reference model."""
    rows: Sequence[Mapping[str, Any]]
    """Training rows, already of the kind that the method declares."""
    held_out: Sequence[Mapping[str, Any]]
    """Rows of the same kind to evaluate on; may be empty."""
    out: Path
    """An output folder. The result is written to `out/model`, checkpoints to `out/checkpoints`."""
    seed: int
    resume: bool
    """Resume from the last complete checkpoint in `out/checkpoints`, if there is one."""
    log: Callable[[Mapping[str, float | int | str]], None]
    """Takes one step's metrics; they become lines of metrics.jsonl."""


Rows = Literal["messages", "pairs", "labels", "prompts"]
"""The rows that a method trains on, all conversational: `messages` have prompt and completion; `pairs` prompt, chosen,
rejected, p_chosen and perhaps weight; `labels` prompt, completion, label; `prompts` prompt. Each row has an `id`."""


@dataclass(frozen=True, slots=True)
class Method:
    """The record that ends a file in `train/`: one way to train on rows."""

    rows: Rows
    options: type
    """A pydantic class of this method's own options, validated before any compute is spent."""
    train: Callable[..., Mapping[str, Any]]
    """`train(job, options) -> figures` of the finished training, JSON values. Raises Mistake."""
    about: str
    writes: Literal["policy", "reward"] = "policy"
    trl: Callable[..., Mapping[str, Any]] | None = None
    """`trl(options) -> fields` of TRL's config beside those that all methods share, for `--print-config`."""


Scores = Callable[[Sequence[tuple[Sequence[Message], str]]], Sequence[float]]
"""A reward: one number for each (conversation, answer). Higher is better; the unit is its own."""
Subject = Literal["pairs", "reward", "policy", "judge"]
"""What an audit looks at. Of pairs a case's `answer` is the chosen one; of policies it is the new one's."""


@dataclass(frozen=True, slots=True)
class Case:
    """Two answers to one prompt, as a probe sees them."""

    id: str
    prompt: tuple[Message, ...]
    answer: str
    other: str
    p: float = 1.0
    """Probability that `answer` is the better one; for policies it has no meaning."""
    scores: tuple[float, float] | None = None
    """The score of each answer in the file, `answer` first."""
    orders: tuple[float | None, ...] = ()
    """p as a judge gave it with `answer` shown first, and shown second."""
    expect: Literal["comply", "refuse"] | None = None
    """What a good answer does, where that is known."""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A question with a right and a wrong answer, to measure the effect of a user's stated belief."""

    id: str
    question: str
    right: str
    wrong: str
    belief: str = "I think {}"
    """How a user states one of the answers; `{}` is replaced by it."""
    keys: tuple[str, str] | None = None
    """Words that identify the right answer and the wrong one in the answer of a policy."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """The input of an audit; a probe uses the parts it needs."""

    cases: Sequence[Case] = ()
    reward: Scores | None = None
    """The reward that is audited."""
    members: Sequence[Scores] = ()
    """Where it is an ensemble, each of its members."""
    gold: Scores | None = None
    """A second reward, which the first is compared with."""
    texts: Sequence[str] = ()
    """Texts that were shown to the model and belong in no answer: principles and critiques."""
    facts: Sequence[Fact] = ()
    answers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """For a prompt of the probe's own, by id: the answers of the new policy and of the old one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe or a check measured, and whether that is a fault."""

    probe: str
    """The name of the probe or check."""
    what: str
    """The measured quantity in a few words: `accuracy of always-longer`."""
    value: float | None
    """None: there was nothing to measure, and `note` says why."""
    low: float | None
    high: float | None
    """The 95 % bootstrap interval, over prompts."""
    threshold: float | None
    """None: reported, never judged."""
    passed: bool | None
    """False only where the whole interval, corrected for the number of comparisons, lies past the threshold."""
    severity: Literal["info", "minor", "major"] = "info"
    n: int = 0
    """Rows it was measured on."""
    examples: tuple[str, ...] = ()
    """Ids of the rows that show it best."""
    note: str = ""
    least: float | None = None
    """The lower threshold of a value that can be wrong in either direction."""
    of: str = ""
    """What was audited: `pairs`, or `reward` and a model's name."""
    rows: int = 0
    """Of a check: rows that show it."""
    saw: tuple[str, ...] = ()
    """Of a check: what was seen, in words."""
    meaning: str = ""
    """Of a check: what it means and what to do about it."""
    inherited: bool = False
    """The policy that this one was trained from has as much of it: the training is not the cause."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The record that ends a file in `audit/`: one way in which a reward can be gamed, and how to detect it."""

    looks: Mapping[Subject, Callable[..., Iterable[Finding]]]
    """For each subject it can look at: `look(exhibit, options) -> findings`. Pure."""
    options: type
    """A pydantic class of this probe's own options, with its thresholds."""
    planted: Callable[[Subject, int], Exhibit]
    """A planted fault that it must detect; the number is a seed."""
    clean: Callable[[Subject, int], Exhibit]
    """The same without the fault, on which it must find nothing."""
    effect: Mapping[Subject, str]
    """For each subject the size of the planted fault, in words."""
    about: str
    asks: Callable[[Sequence[Fact]], Sequence[Prompt]] | None = None
    """Further prompts that policies must answer for it."""
