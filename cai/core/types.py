"""The data types of the pipeline: small frozen rows that all packages share, and the Model protocol.

Left out on purpose: behaviour. Rows are read and written by `runs`, constitutions by `constitution`; the records of
plug-ins are in `plugin_types`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

JsonObject = dict[str, Any]
"""A JSON object as a server, a file or a template has it. Its values are checked where they are read."""
Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "filter", "unknown"]
"""Why generation ended: by itself, at max_tokens, cut by the endpoint's content filter, or for an unknown reason."""
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
    """A conversation that ends in a user turn."""

    id: str
    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    split: str | None = None
    """Which part of an export it belongs to; None lets the export's seeded split decide."""


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example for few-shot prompts. `revision` None: no fault was found and the answer stays."""

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
    """Which takes precedence where two principles disagree; higher first. It does not affect the draw."""
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
    """Worked examples shown with every principle, after the principle's own."""


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
    estimated: bool = False
    """Counted by cai, because the endpoint said nothing that can be believed."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer, with the reasoning separated."""

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
    prompt_tokens: int = 0
    """Tokens read before it; the continuations of one call are read after one prompt."""
    usage: Usage | None = None
    """What the request used that asked for this continuation alone; None where one call scored all of them."""


@dataclass(frozen=True, slots=True)
class GateHit:
    """A gate that noticed something, its action, and the reason."""

    gate: str
    action: Action
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One round: the drawn principle, the critique, the revision as the model wrote it, and the text that was kept.

    Of both, the lines of the question's fence are left out.
    """

    round: int
    principle: str
    critique: Completion | None = None
    """None in direct revision."""
    verdict: Judged | None = None
    """None when the template does not ask for a conclusion."""
    revision: Completion | None = None
    """None when the critique found nothing and the round stopped there."""
    answer: str | None = None
    """The text that replaced the previous answer; None when a gate rejected the revision."""
    gates: tuple[GateHit, ...] = ()
    """What the gates noticed, and `fence` and `contradiction`."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One draft and all its critiques and revisions."""

    prompt: Prompt
    sample: int
    draft: Completion
    steps: tuple[Step, ...]
    final: str
    gates: tuple[GateHit, ...] = ()
    """What was noticed about the draft: by the gates, and `fence`."""
    writer: str = ""
    """Writer and temperature of the draft, `writer-2@0.7`, where a run compares several."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt in the order in which they are shown, and the principle to compare them by."""

    id: str
    """Names the two answers whatever their order; a judge's random seed is derived from it."""
    prompt: Prompt
    first: str
    second: str
    principle: Principle
    examples: tuple[Comparison, ...] = ()
    """Worked examples, each with a principle of its own."""
    better: Literal["first", "second"] | None = None
    """The right answer, in a worked example."""
    swapped: bool = False

    def swap(self) -> Comparison:
        """The same two answers shown in the other order."""
        better: dict[str | None, Literal["first", "second"]] = {"first": "second", "second": "first"}
        return replace(
            self, first=self.second, second=self.first, better=better.get(self.better), swapped=not self.swapped
        )


@dataclass(frozen=True, slots=True)
class Opinion:
    """A judge's answer to one Comparison."""

    p: float | None
    """Probability that the answer shown first is better; 0.5 is a tie, None an abstention."""
    raw: str = ""
    """What the model wrote, if it wrote anything."""
    scores: tuple[float, float] | None = None
    """The score of each answer, from judges that read one answer at a time."""
    control: float | None = None
    """The same probability without showing the principle: the part that is due to fluency alone."""
    mass: float | None = None
    """Probability of all the options together; near 0 the model was answering another question."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's probability that the first of two answers is better, and how it was obtained."""

    p: float | None
    """In [0, 1], over all orders and principles asked; 0.5 is a tie, None an abstention: neither is a guess."""
    method: str
    """File name in `judges/`; or how several verdicts were combined: mean, majority, minimum."""
    judge: str
    """The model that was asked."""
    principles: tuple[str, ...] = ()
    orders: tuple[float | None, ...] = ()
    """p when the first answer is shown first, and when it is shown second; None: not asked so. Empty: no order."""
    flip: bool | None = None
    """Whether the two orders prefer different answers; None where only one was asked."""
    raw: tuple[str, ...] = ()
    """What the model wrote, principle by principle, each in the orders asked."""
    scores: tuple[float, float] | None = None
    control: float | None = None
    mass: float | None = None
    disagreement: float | None = None
    """Between several judges: largest p minus smallest."""
    parts: tuple[Verdict, ...] = ()
    """Each judge's own verdict, where there are several."""

    def swap(self) -> Verdict:
        """The same verdict with the two answers in the other order."""
        turned = [_other(p) for p in reversed(self.orders)]
        scores = self.scores and (self.scores[1], self.scores[0])
        parts = tuple(part.swap() for part in self.parts)
        return replace(
            self, p=_other(self.p), orders=tuple(turned), scores=scores, control=_other(self.control), parts=parts
        )


def _other(p: float | None) -> float | None:
    return None if p is None else 1 - p


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, and the probability that the constitution prefers `chosen`."""

    prompt: Prompt
    sample: int
    chosen: str
    rejected: str
    p_chosen: float
    """Probability that the constitution prefers `chosen`: a judge's, or 1.0 by construction for an unjudged revision.

    0.5 is a tie, and the two names are arbitrary. Below 0.5 only where a revision was judged worse and kept, tagged.
    """
    principles: tuple[str, ...]
    """Ids of the principles whose revisions lie between rejected and chosen, or that the judge compared by."""
    source: str
    """How the pair came about: `revision:0>4` draft against fourth revision, `sample:0>3` fourth sample over first."""
    gates: tuple[GateHit, ...] = ()
    verdict: Verdict | None = None
    """The judge's verdict, with `chosen` as the first answer."""
    writers: tuple[str, ...] = ()
    """The writers of chosen and rejected, where a run compares several."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that gave no output, and why. Never a number."""

    id: str
    stage: str
    kind: str
    message: str
    attempts: int = 1
    sample: int = 0


class Meter(Protocol):
    """Counts the requests of a model and what they use. A model with an attribute `meter` reports every try to it."""

    def claim(self, size: int, max_tokens: int) -> Usage:
        """Before a request of `size` bytes is sent: the most that it can use. Raises BudgetReached past a limit."""
        ...

    def settle(self, claimed: Usage, used: Usage, size: int = 0) -> None:
        """After it: what it did use. `claimed` again where nobody knows."""
        ...


class Model(Protocol):
    """A language model. Async, one request per call: batching, pooling and throttling happen inside."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything about the model that can change an answer: engine, model, revision, endpoint."""
        ...

    @property
    def concurrency(self) -> int:
        """How many requests it can use in flight."""
        ...

    async def complete(self, request: Request) -> Completion:
        """One answer. Raises Transient or Permanent (a Failure row) or Refused (stops the run)."""
        ...

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probability of each continuation after the request's messages. Raises Mistake where unsupported."""
        ...

    def status(self) -> Mapping[str, float]:
        """Its state for the progress line: in_flight, limit, throttled; empty where there is nothing to report."""
        ...

    async def close(self) -> None:
        """Release threads, sessions and memory."""
        ...


def sample_numbers(pair: Pair) -> tuple[int, int]:
    """The numbers of the rejected and the chosen sample."""
    rejected, _, chosen = pair.source.removeprefix("sample:").partition(">")
    return int(rejected), int(chosen)
