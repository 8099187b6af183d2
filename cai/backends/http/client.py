"""A model at an endpoint: each request waits for the throttle, is sent, and is retried if that can help.

What a request looks like and how an answer is read is in an `Api`: `openai_chat` or `anthropic_messages`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from pydantic_core import to_json

from cai.backends.http.connection import Connection
from cai.backends.http.endpoint import Endpoint
from cai.backends.http.errors import BUSY
from cai.backends.http.retry import Retry
from cai.backends.http.throttle import Throttle
from cai.core.errors import Permanent, Refused, Transient
from cai.core.types import Completion, JsonObject, Request, Score

Answer = TypeVar("Answer")

ENOUGH = 20
"""Requests refused as bad before any was answered; then the run stops, since all of them will be."""
_MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading an answer of an unexpected shape raises."""


class Api(Protocol):
    """A vendor's API: how a request is written and how its answer is read."""

    def put(self, request: Request) -> tuple[str, JsonObject]:
        """Path and body of a request. Raises Mistake if this API cannot express it."""
        ...

    def read(self, answer: JsonObject) -> Completion:
        """The completion in an answer. Raises CallFailed; KeyError and the like if the shape is wrong."""
        ...

    async def score(self, post: Post, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probabilities of continuations, by as many posts as necessary. Raises Mistake if unsupported."""
        ...


class Post(Protocol):
    """Sends one body and reads its answer, with throttle and retry."""

    async def __call__(self, path: str, body: JsonObject, read: Callable[[Any], Answer]) -> Answer: ...


class EndpointClient:
    """A Model at an endpoint."""

    def __init__(self, endpoint: Endpoint, api: Api, identity: Mapping[str, str], connection: Connection) -> None:
        self.identity, self.concurrency = identity, endpoint.concurrency
        self._api, self._connection, self._retry = api, connection, Retry()
        self._throttle = Throttle(
            endpoint.concurrency,
            requests_per_minute=endpoint.requests_per_minute,
            tokens_per_minute=endpoint.tokens_per_minute,
        )
        self._counts_tokens = endpoint.tokens_per_minute is not None
        self._answered = self._bad = 0

    def complete(self, request: Request) -> Coroutine[object, object, Completion]:
        """One answer. Raises Transient or Permanent (a Failure row), Refused or Mistake (stops the run)."""
        path, body = self._api.put(request)
        return self._post(path, body, self._api.read)

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probability of each continuation. Raises Mistake if the endpoint does not offer that."""
        return await self._api.score(self._post, request, continuations)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    def put(self, request: Request) -> tuple[str, JsonObject]:
        """Path and body of a request that is sent another way, such as in a batch. Raises Mistake."""
        return self._api.put(request)

    def read(self, answer: JsonObject) -> Completion:
        """The completion in an answer that was received another way. Raises CallFailed."""
        return _parsed_answer(answer, self._api.read)

    def status(self) -> dict[str, float]:
        """For a progress line: requests in flight, the limit found, refusals for load, and retries."""
        throttle = self._throttle
        counts = {"in_flight": throttle.in_flight, "limit": throttle.limit, "throttled": throttle.throttled}
        return {name: float(count) for name, count in counts.items()} | {"retried": float(self._retry.retried)}

    async def _post(self, path: str, body: JsonObject, read: Callable[[Any], Answer]) -> Answer:
        raw = to_json(body)
        tokens = len(raw) / 4 + body.get("max_tokens", 0) if self._counts_tokens else 0.0
        try:
            return await self._once(path, raw, tokens, read)
        except Transient as error:
            first = error
        return await self._retry.again(partial(self._once, path, raw, tokens, read), first)

    async def _once(self, path: str, raw: bytes, tokens: float, read: Callable[[Any], Answer]) -> Answer:
        ticket = self._throttle.at_once(tokens) or await self._throttle.enter(tokens)
        try:
            data = await self._connection.post(path, raw)
            answer = _parsed_answer(data, read)
        except Transient as error:
            if error.retry_after:
                self._throttle.hold(error.retry_after)
            (self._throttle.refused if error.kind in BUSY else self._throttle.lost)(ticket)
            raise
        except BaseException as error:
            self._throttle.lost(ticket)
            if not self._answered and isinstance(error, Permanent) and error.kind == "bad_request":
                self._bad += 1
            if self._bad >= ENOUGH and not self._answered:
                where, what = self.identity["endpoint"], f"every request is refused ({error})"
                raise Refused(where, what, "fix what it names") from None
            raise
        self._answered += 1
        self._throttle.leave(ticket, _above_estimate(data, tokens) if self._counts_tokens else 0.0)
        return answer


def _parsed_answer(data: Any, read: Callable[[Any], Answer]) -> Answer:
    try:
        return read(data)
    except _MALFORMED as error:
        raise Transient(
            "malformed", f"the answer has an unexpected shape: {type(error).__name__} {error}"[:200]
        ) from None


def _above_estimate(data: Any, estimate: float) -> float:
    """How many tokens above the estimate were used; 0 if the answer does not say."""
    try:
        usage = data["usage"]
        return float(usage.get("total_tokens") or usage["input_tokens"] + usage["output_tokens"]) - estimate
    except _MALFORMED:
        return 0.0
