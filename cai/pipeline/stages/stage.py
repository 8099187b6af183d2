"""What the stages share: a stage's model, template and sampling, the one way to ask with them, and a round's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cai.core.errors import Permanent
from cai.core.seeds import seed_and_nonce
from cai.core.types import Completion, Example, JsonObject, Model, Principle, Prompt, Request, Sampling
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

    async def ask(self, values: Mapping[str, object], *moment: object) -> Completion:
        """One answer. `moment` (prompt id, sample, round) makes the seed, so order and batching change nothing.

        Raises Permanent("empty") where there is no text, CallFailed where the call failed.
        """
        seed, nonce = seed_and_nonce(self.secret, self.seed, self.name, *moment)
        messages = self.template.render(values, nonce)
        request = Request(messages, self.sampling, seed, self.template.plain)
        completion = await self.model.complete(request)
        if not (text := completion.text.strip()):
            why = "only reasoning" if completion.thinking else "nothing"
            raise Permanent("empty", f"the model wrote {why} (finish: {completion.finish})")
        return completion if text == completion.text else replace(completion, text=text)


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
