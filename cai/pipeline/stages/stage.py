"""What the stages share: a stage's model, template and sampling, the one way to ask with them, and a round's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cai.core.errors import Permanent
from cai.core.seeds import seed_and_nonce
from cai.core.types import Completion, Example, GateHit, JsonObject, Model, Principle, Prompt, Request, Sampling
from cai.templates.fence import Cut, cut_fence, unfenced
from cai.templates.sandbox import Untrusted, turns
from cai.templates.template import Template


@dataclass(frozen=True, slots=True)
class Stage:
    """Who is asked, in which words, how it samples, the run's seed, and the secret that fence ids are made with."""

    name: str
    model: Model
    template: Template
    sampling: Sampling
    seed: int
    secret: bytes = field(repr=False)

    async def ask(self, values: Mapping[str, object], *moment: object) -> tuple[Completion, Cut | None]:
        """One answer, and its parts where the fence of the question is in it.

        `moment` (prompt id, sample, round) makes the seed, so order and batching change nothing.
        Raises Permanent("empty") where there is no text, CallFailed where the call failed.
        """
        seed, nonce = seed_and_nonce(self.secret, self.seed, self.name, *moment)
        messages = self.template.render(values, nonce)
        request = Request(messages, self.sampling, seed, self.template.plain)
        completion = await self.model.complete(request)
        if not (text := completion.text.strip()):
            why = "only reasoning" if completion.thinking else "nothing"
            raise Permanent("empty", f"the model wrote {why} (finish: {completion.finish})")
        if text != completion.text:
            completion = replace(completion, text=text)
        if completion.thinking and nonce in completion.thinking:
            completion = replace(completion, thinking=unfenced(completion.thinking, nonce))
        return completion, cut_fence(text, nonce, messages, str(getattr(values.get("answer"), "text", "")))

    async def answer(self, values: Mapping[str, object], *moment: object) -> tuple[Completion, tuple[GateHit, ...]]:
        """One answer without the fence, and what was cut. Raises Permanent("fence") where that is not exact."""
        completion, hits = take_inside(*await self.ask(values, *moment))
        if any(hit.action == "drop" for hit in hits):
            raise Permanent(FENCE, hits[0].detail)
        return completion, hits


FENCE = "fence"
"""Names the cut among the gates, and the failure where it is not exact."""


def take_inside(completion: Completion, cut: Cut | None) -> tuple[Completion, tuple[GateHit, ...]]:
    """The completion as it is without its fence; a hit that drops it where what stands inside is not certain."""
    if cut is None:
        return completion, ()
    return _with_text(completion, cut.inside or cut.whole), (GateHit(FENCE, cut.action, cut.why),)


def take_whole(completion: Completion, cut: Cut | None) -> tuple[Completion, tuple[GateHit, ...]]:
    """The completion without the marks of the fence, and with all that stands inside and outside."""
    if cut is None or cut.whole == completion.text:
        return completion, ()
    return _with_text(completion, cut.whole), (GateHit(FENCE, "repair", cut.why),)


def _with_text(completion: Completion, text: str) -> Completion:
    """Raises Permanent("empty") where there is no text."""
    if not text:
        raise Permanent("empty", f"the model wrote nothing but the fence (finish: {completion.finish})")
    return replace(completion, text=text)


@dataclass(frozen=True, slots=True)
class Round:
    """One critique-and-revise round: which answer is looked at, by which principle, with which worked cases."""

    prompt: Prompt
    sample: int
    number: int
    answer: str
    principle: Principle
    examples: tuple[Example, ...]

    @property
    def moment(self) -> tuple[object, ...]:
        """What makes this round's seed its own."""
        return self.prompt.id, self.sample, self.number, self.principle.id

    @property
    def values(self) -> JsonObject:
        """What a template is offered: the conversation and the current answer, never an earlier round's critique."""
        return {
            "conversation": turns(self.prompt.messages),
            "answer": Untrusted(self.answer),
            "principle": self.principle,
            "examples": self.examples,
        }
