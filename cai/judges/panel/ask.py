"""What the judges share: a model, a template and a seed, and the calls to the model by probabilities and by text.

Both answers to a prompt are rendered with one fence id whatever the principle, so that all principles share the text
before theirs and the KV cache of that prefix is reused.

Left out on purpose: both orders, several principles, several judges; see `panel.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log
from typing import TypeVar

from cai.core.concurrency import together
from cai.core.errors import Permanent
from cai.core.plugin_types import Judge
from cai.core.seeds import nonce, seed
from cai.core.types import Comparison, Completion, Model, Request, Sampling
from cai.templates.fence import Cut, cut_fence
from cai.templates.sandbox import Untrusted, turns
from cai.templates.template import Template, load_template

Rating = TypeVar("Rating")


def load_judge_template(record: Judge, name: str) -> Template:
    """The template of a judge: a name in its own folder or in `prompts/`, or a path. Raises Mistake."""
    return load_template(record.asks, name, record.offers, record.prompts)


LETTERS = ("(A)", "(B)")
"""What a judge that sees both answers replies with; in parentheses, so that no option is the beginning of another."""


PROBABILITIES = Sampling(temperature=0.0, max_tokens=1)
"""For requests of probabilities: nothing is generated, so none of these settings changes an answer."""


@dataclass(frozen=True, slots=True)
class JudgeContext:
    """The model, the template, the run's seed, and the secret that fence ids are made with."""

    model: Model
    template: Template
    seed: int
    secret: bytes = field(repr=False)

    def request(self, values: Mapping[str, object], id: str, sampling: Sampling, *moment: object) -> Request:
        """The question about the answers that `id` names; `moment` is part of its random seed."""
        messages = self.template.render(values, self._fence_id(id))
        return Request(messages, sampling, seed(self.seed, "judge", id, *moment), self.template.plain)

    async def odds(self, values: Mapping[str, object], id: str, options: Sequence[str]) -> Odds:
        """Probabilities of whole option strings, summed over their tokens (arXiv 2212.08073, 4.1)."""
        space = " " if self.template.plain else ""  # a text to continue ends without a space; a turn begins without one
        scores = await self.model.score(self.request(values, id, PROBABILITIES), [space + option for option in options])
        if any(score.logprob != score.logprob for score in scores):
            raise Permanent("not_a_number", "an option has no log-probability")
        most = max(score.logprob for score in scores)
        weights = [exp(score.logprob - most) for score in scores]
        return Odds(tuple(weight / sum(weights) for weight in weights), min(1.0, exp(most + log(sum(weights)))))

    async def words(self, values: Mapping[str, object], id: str, sampling: Sampling, *moment: object) -> Completion:
        """A generated text; what it repeats inside a fence is no part of it. Raises Permanent where it is empty."""
        completion, cut = await self._written(values, id, sampling, *moment)
        if cut and not cut.outside:
            raise Permanent("unparsable", "the judge wrote nothing outside the fence that it was shown")
        return replace(completion, text=cut.outside) if cut else completion

    async def rationale(self, values: Mapping[str, object], id: str, sampling: Sampling, *moment: object) -> Completion:
        """A generated text of which all is kept but the lines of the fence. Raises Permanent where it is empty."""
        completion, cut = await self._written(values, id, sampling, *moment)
        if cut and not cut.whole:
            raise Permanent("empty", "the judge wrote nothing but the fence that it was shown")
        return replace(completion, text=cut.whole) if cut else completion

    async def _written(
        self, values: Mapping[str, object], id: str, sampling: Sampling, *moment: object
    ) -> tuple[Completion, Cut | None]:
        request = self.request(values, id, sampling, *moment)
        completion = await self.model.complete(request)
        if not completion.text.strip():
            raise Permanent("empty", f"the judge wrote nothing (finish: {completion.finish})")
        return completion, cut_fence(completion.text, self._fence_id(id), request.messages)

    def _fence_id(self, id: str) -> str:
        return nonce(self.secret, self.seed, "judge", id)

    async def fluency(self, values: Mapping[str, object], id: str, answer: str) -> float:
        """Mean log-probability of an answer's tokens, in nats."""
        space = " " if self.template.plain else ""
        (score,) = await self.model.score(self.request(values, id, PROBABILITIES), [space + answer])
        return score.logprob / score.tokens


@dataclass(frozen=True, slots=True)
class Odds:
    """Probabilities of the options, normalised to 1, and the total probability before that."""

    shares: tuple[float, ...]
    mass: float


def both_answers(asked: Comparison) -> dict[str, object]:
    """The variables of a template that shows both answers."""
    return {
        "conversation": turns(asked.prompt.messages),
        "first": Untrusted(asked.first),
        "second": Untrusted(asked.second),
        "principle": asked.principle,
        "examples": asked.examples,
        "menu": LETTERS,
    }


def one_answer(asked: Comparison, answer: str) -> dict[str, object]:
    """The variables of a template that shows one answer."""
    return {"conversation": turns(asked.prompt.messages), "answer": Untrusted(answer), "principle": asked.principle}


async def rate_both(asked: Comparison, rate: Callable[[str], Awaitable[Rating]]) -> tuple[Rating, Rating]:
    """Both answers rated, each by itself, at the same time."""
    first, second = await together([rate(asked.first), rate(asked.second)])
    return first, second
