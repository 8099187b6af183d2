"""The nouns of the pipeline: small frozen records that every room shares, and the seams they pass through.

Left out on purpose: behaviour. Rows are read and written by `runs`, constitutions by `constitution`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "filter"]
"""Why generation ended: by itself, at max_tokens, or cut by the endpoint's content filter."""
Judged = Literal["fault", "clean", "unclear"]
"""What a critique concluded; `unclear` when it was asked to conclude and did not."""
Action = Literal["drop", "tag", "repair"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends in a human turn."""

    id: str
    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    split: str | None = None
    """Which part of an export it belongs to; None lets the export's seeded split decide."""


@dataclass(frozen=True, slots=True)
class Example:
    """A worked case for few-shots. `revision` None means nothing was at fault and the answer stays."""

    prompt: str
    answer: str
    critique: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Principle:
    """One rule of a constitution, in the forms that the stages need."""

    id: str
    critique: str
    revise: str
    title: str = ""
    compare: str | None = None
    """The question a judge is asked about two answers; None: not used for comparison."""
    checks: tuple[str, ...] = ()
    """Atomic yes/no questions about one answer."""
    weight: float = 1.0
    """Relative frequency of being drawn; 0 switches the principle off."""
    tags: tuple[str, ...] = ()
    applies_to: tuple[str, ...] = ()
    """Prompt tags it is drawn for; empty: every prompt."""
    priority: int = 0
    """Which wins where two principles disagree; higher first. It does not affect the draw."""
    examples: tuple[Example, ...] = ()
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class Constitution:
    """A named, versioned list of principles; `digest` identifies everything in it that can change an answer."""

    name: str
    version: str
    principles: tuple[Principle, ...]
    digest: str
    about: str = ""
    tags: tuple[str, ...] = ()
    """The tags that principles and `applies_to` may use."""
    examples: tuple[Example, ...] = ()
    """Worked cases shown with every principle, after the principle's own."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. Temperature 0 is greedy, and then top_p and the seed do not matter."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    """Texts that end generation; they are not part of the answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model. `plain`: one message holding a text to continue, sent without a chat template."""

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    seed: int = 0
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written by one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer, reasoning split off."""

    text: str
    thinking: str | None = None
    finish: Finish = "stop"
    usage: Usage = Usage()
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each generated token, where the backend gives it."""


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability (nats, summed over tokens) of one continuation, and its number of tokens."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class GateHit:
    """A gate that noticed something, what it did about it, and why."""

    gate: str
    action: Action
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One round: the drawn principle, the critique, the revision as the model wrote it, and what was kept of it."""

    round: int
    principle: str
    critique: Completion | None = None
    """None in direct revision."""
    verdict: Judged | None = None
    """None when the template does not ask for a conclusion."""
    revision: Completion | None = None
    """None when the critique found nothing and the round stopped there."""
    answer: str | None = None
    """The text that took the place of the previous answer; None when a gate turned the revision away."""
    gates: tuple[GateHit, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """One draft's whole life under the constitution."""

    prompt: Prompt
    sample: int
    draft: Completion
    steps: tuple[Step, ...]
    final: str
    gates: tuple[GateHit, ...] = ()
    """What the gates noticed about the draft."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, and how sure we are which the constitution prefers."""

    prompt: Prompt
    sample: int
    chosen: str
    rejected: str
    p_chosen: float
    """Probability in [0.5, 1] that the constitution prefers `chosen`; 1.0 by construction for revision pairs."""
    principles: tuple[str, ...]
    """Ids of the principles whose revisions lie between rejected and chosen."""
    source: str
    """How the pair came about, `revision:0>4` for draft against fourth revision."""
    gates: tuple[GateHit, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went in and did not come out, and why. Never a number."""

    id: str
    stage: str
    kind: str
    message: str
    attempts: int = 1
    sample: int = 0


class Model(Protocol):
    """Something one can ask. Async and one request at a time: batching, pooling and throttling happen inside."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything about the model that can change an answer: engine, model, revision, endpoint."""
        ...

    @property
    def concurrency(self) -> int:
        """How many requests it wants in flight."""
        ...

    async def complete(self, request: Request) -> Completion:
        """One answer. Raises Transient or Permanent (a Failure row) or Refused (stops the run)."""
        ...

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probability of each continuation after the request's messages. Raises Mistake where unsupported."""
        ...

    def status(self) -> Mapping[str, float]:
        """What it is doing, for a progress line: in_flight, limit, throttled; empty where there is nothing to say."""
        ...

    async def close(self) -> None:
        """Give back threads, sessions and memory."""
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """The record that ends a file in `backends/`: how to open a model there."""

    options: type
    """A pydantic class of this backend's own knobs, checked before anything is opened."""
    open: Callable[..., Model]
    """`open(options) -> Model`; heavy imports happen inside."""
    about: str


Column = Literal["messages", "text", "texts", "bool", "int", "float"]
"""What a column of an export holds; `messages` is a list of role and content, `texts` a list of text."""


@dataclass(frozen=True, slots=True)
class Export:
    """What an exporter is given: rows, and who made them."""

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
