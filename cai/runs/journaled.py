"""A model whose answers are looked up in the journal before they are asked for, and how answers are kept there."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from json import JSONEncoder
from math import isfinite
from operator import attrgetter

from pydantic_core import to_json

from cai.core.errors import Permanent
from cai.core.types import Completion, Model, Request, Score, Usage
from cai.runs.budget import Booking, Budget, CallTally, CurrentBooking, Price
from cai.runs.journal import Answer, Form, Journal

_encode = JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def through_journal(
    journal: Journal, model: Model, tally: CallTally, budget: Budget | None = None, price: Price | None = None
) -> Journaled:
    """`model`, asked through this journal; new calls are claimed from `budget` at `price`."""
    return Journaled(journal, model, tally, budget, price)


class Journaled:
    """A Model whose answers are looked up before they are asked for."""

    def __init__(
        self, journal: Journal, model: Model, tally: CallTally, budget: Budget | None, price: Price | None
    ) -> None:
        self._journal, self._model, self.tally = journal, model, tally
        self._price, self._booking = price, Booking(tally, budget, price)
        self._meters_itself = hasattr(model, "meter")
        if self._meters_itself:
            model.meter = CurrentBooking()  # type: ignore[attr-defined]
        # what all keys of this model begin with, hashed once
        heads = {verb: _encode([verb, dict(model.identity)]).encode() for verb in ("complete", "score")}
        self._heads = {verb: hashlib.sha256(head) for verb, head in heads.items()}

    @property
    def model(self) -> Model:
        """The model itself; roles of the same choice share one."""
        return self._model

    @property
    def identity(self) -> Mapping[str, str]:
        return self._model.identity

    @property
    def concurrency(self) -> int:
        return self._model.concurrency

    @property
    def cost(self) -> float | None:
        """What all answers so far cost, found ones too; None where the price is not known."""
        return self._price.of(self.tally.usage) if self._price else None

    async def complete(self, request: Request) -> Completion:
        ask = partial(self._asked, request, partial(self._model.complete, request), COMPLETION)
        completion, new = await self._journal.once(self._key("complete", request), ask, COMPLETION)
        self._count(new, completion.usage)
        return completion

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        ask = partial(self._asked, request, partial(self._model.score, request, continuations), SCORES)
        scores, new = await self._journal.once(self._key("score", request, *continuations), ask, SCORES)
        self._count(new, _read(scores))
        return scores

    def _asked(self, request: Request, call: Callable[[], Awaitable[Answer]], form: Form[Answer]) -> Awaitable[Answer]:
        """A new call, counted also if it fails. Raises BudgetReached."""
        if self._meters_itself:
            self.tally.asked += 1
            self._booking.begin()
            return call()
        size = sum(len(message.content) + 20 for message in request.messages)
        claimed = self._booking.claim(size, request.sampling.max_tokens)
        self.tally.asked += 1
        return self._settled(claimed, size, call, form)

    async def _settled(
        self, claimed: Usage, size: int, call: Callable[[], Awaitable[Answer]], form: Form[Answer]
    ) -> Answer:
        """The answer of a model that books nothing itself: one request, which used nothing if it failed."""
        used = Usage()
        try:
            answer = await call()
            used = form.usage(answer)
            return answer
        finally:
            self._booking.settle(claimed, used, size)

    def status(self) -> Mapping[str, float]:
        """What the model says it is doing; nothing where its backend does not say."""
        return status() if (status := getattr(self._model, "status", None)) else {}

    async def close(self) -> None:
        if close := getattr(self._model, "close", None):
            await close()

    def _key(self, verb: str, request: Request, *more: str) -> bytes:
        sampling = request.sampling
        greedy = sampling.temperature == 0  # then neither the seed nor top_p can change the answer
        chance = (0, 1, 0) if greedy else (sampling.temperature, sampling.top_p, request.seed)
        sent = (
            [(message.role, message.content) for message in request.messages],
            request.plain,
            (*chance, sampling.max_tokens, sampling.stop),
            more,
        )
        key = self._heads[verb].copy()
        try:
            key.update(to_json(sent))
        except ValueError:  # half a surrogate pair, of which pydantic makes no JSON
            key.update(_encode(sent).encode("utf-8", "surrogatepass"))
        return key.digest()

    def _count(self, new: bool, usage: Usage) -> None:
        tally = self.tally
        tally.add(new, usage)
        if new and self._price is not None:
            tally.useful_cost = (tally.useful_cost or 0.0) + self._price.of(usage)


def _read(scores: Sequence[Score]) -> Usage:
    """What the requests for these scores used; where one call scored all, a score writes nothing and is read once."""
    if all(score.usage for score in scores):
        used = [score.usage for score in scores if score.usage]
        return Usage(sum(one.prompt_tokens for one in used), sum(one.completion_tokens for one in used))
    prompt = max((score.prompt_tokens for score in scores), default=0)
    return Usage(prompt + sum(score.tokens for score in scores))


def _whole(completion: Completion) -> Completion:
    # an endpoint can cut an emoji in half; a lone surrogate is no Unicode text and no file can hold it
    if completion.text.isascii() and not completion.thinking:
        return completion
    text, thinking = (part and part.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                      for part in (completion.text, completion.thinking))  # fmt: skip
    return replace(completion, text=text or "", thinking=thinking)


def _finite(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    if not all(isfinite(score.logprob) for score in scores):
        raise Permanent("not_a_number", "a log-probability is infinite or no number")
    return scores


COMPLETION: Form[Completion] = Form(Completion, attrgetter("usage"), _whole)
SCORES: Form[tuple[Score, ...]] = Form(tuple[Score, ...], _read, _finite)


class Unasked:
    """A Model that answers nothing: behind a journal it shows what a run would still have to ask."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.identity, self.concurrency = model.identity, 1

    async def complete(self, request: Request) -> Completion:
        raise Permanent("unasked", "not in the journal")

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        raise Permanent("unasked", "not in the journal")

    def status(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        if close := getattr(self._model, "close", None):
            await close()
