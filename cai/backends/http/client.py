"""A model at an endpoint: each request waits for the throttle, is claimed, sent and booked, and retried if that helps.

What an answer says that it used is booked before it is judged fit. Where it says nothing to be believed, an estimate is
booked; and where a request may have been answered but the answer was lost, the most that it can have used.

What a request looks like and how an answer is read is in an `Api`: `openai_chat` or `anthropic_messages`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from pydantic_core import to_json

from cai.backends.http.connection import Connection
from cai.backends.http.endpoint import Endpoint
from cai.backends.http.errors import BUSY, Suspect, body_error, has_error
from cai.backends.http.first_answers import FirstAnswers
from cai.backends.http.replicas import Replica, Replicas
from cai.backends.http.retry import Retry
from cai.backends.http.throttle import Throttle
from cai.backends.http.usage import estimated_usage, reported_usage
from cai.core.concurrency import conversation
from cai.core.errors import CaiError, CallFailed, Permanent, Refused, Transient
from cai.core.seeds import digest
from cai.core.types import Completion, JsonObject, Meter, Request, Score, Usage

log = logging.getLogger("cai")

Answer = TypeVar("Answer")

Read = Callable[[Any, Usage], Answer]
"""Reads an answer's JSON."""
LOST = ("timeout", "truncated", "connection", "malformed", "too_large")
"""Kinds of failure in which the endpoint may have answered, and charge for it."""
PAID = ("empty", "unusable", "content_filter", "tokens")
"""Kinds of failure of an answer that the model did write, for which an estimate is booked if it names no usage."""
_MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading an answer of an unexpected shape raises."""


class _Unmetered:
    """The Meter of a model that is asked outside of a run: it counts nothing."""

    def claim(self, size: int, max_tokens: int) -> Usage:
        return Usage(size, max_tokens)

    def settle(self, claimed: Usage, used: Usage, size: int = 0) -> None:
        return None


class Api(Protocol):
    """A vendor's API: how a request is written and how its answer is read."""

    def put(self, request: Request) -> tuple[str, JsonObject]:
        """Path and body of a request. Raises Mistake if this API cannot express it."""
        ...

    def read(self, answer: JsonObject, usage: Usage) -> Completion:
        """The completion in an answer that took `usage`. Raises CaiError; KeyError and the like for a wrong shape."""
        ...

    async def score(self, post: Post, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probabilities of continuations, by as many posts as necessary. Raises Mistake if unsupported."""
        ...


class Post(Protocol):
    """Sends one body and reads its answer, with throttle and retry; `read` gets the answer and what it used."""

    async def __call__(self, path: str, body: JsonObject, read: Read[Answer]) -> Answer: ...


class EndpointClient:
    """A Model at an endpoint."""

    def __init__(
        self, endpoint: Endpoint, api: Api, identity: Mapping[str, str], connections: Sequence[Connection]
    ) -> None:
        """`connections` go to the replicas, in the order of the endpoint's addresses."""
        self.identity, self.concurrency = identity, endpoint.concurrency
        self.meter: Meter = _Unmetered()
        self._api, self._endpoint = api, endpoint
        self._first = FirstAnswers(endpoint.place)
        self._retry = Retry(understood=lambda: self._first.any)
        parts = zip(endpoint.urls, connections, strict=True)
        self._replicas = Replicas([Replica(url.partition("?")[0], one, _throttle(endpoint)) for url, one in parts])
        self._counts_tokens = endpoint.tokens_per_minute is not None
        self._folds, self._may_fold = endpoint.system == "fold", endpoint.system is None

    def complete(self, request: Request) -> Coroutine[object, object, Completion]:
        """One answer. Raises Transient or Permanent (a Failure row), Refused, Mistake, BudgetReached (stops)."""
        path, body = self._api.put(request)
        return self._post(path, body, self._api.read)

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probability of each continuation. Raises Mistake if the endpoint does not offer that."""
        return await self._api.score(self._post, request, continuations)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(one.connection.close() for one in self._replicas.all))

    def put(self, request: Request) -> tuple[str, JsonObject]:
        """Path and body of a request that is sent another way, such as in a batch. Raises Mistake."""
        path, body = self._api.put(request)
        return path, folded(body) if self._folds else body

    def claim(self, body: JsonObject) -> Claim:
        """Claim a request that is sent another way. Raises BudgetReached."""
        return self._claim(len(to_json(body)), body)

    def read(self, answer: JsonObject, claim: Claim) -> Completion:
        """The completion in an answer that was received another way, booked. Raises CallFailed."""
        return self._booked(answer, claim, self._api.read)

    def status(self) -> dict[str, float]:
        """For a progress line: requests in flight, the limit found, refusals for load, retries and their reasons."""
        throttles, retry = [one.throttle for one in self._replicas.all], self._retry
        counts = {
            "in_flight": sum(one.in_flight for one in throttles),
            "limit": sum(one.limit for one in throttles),
            "throttled": sum(one.throttled for one in throttles),
            "retried": retry.retried,
            "held": min(one.held for one in throttles),
        } | {f"retried: {kind}": count for kind, count in retry.reasons.items()}
        return {name: float(count) for name, count in counts.items()}

    async def _post(self, path: str, body: JsonObject, read: Read[Answer]) -> Answer:
        try:
            return await self._tried(path, body, read)
        except Transient as error:
            first = error
        return await self._retry.again(partial(self._tried, path, body, read), first)

    async def _tried(self, path: str, body: JsonObject, read: Read[Answer]) -> Answer:
        """One try, and a second one at once where the system role is refused and may be folded."""
        if self._folds:
            body = folded(body)
        try:
            return await self._once(path, to_json(body), body, read)
        except Suspect as error:
            if not self._helps_to_fold(error, body):
                raise
            self._note_fold(error)
        body = folded(body)
        return await self._once(path, to_json(body), body, read)

    def _helps_to_fold(self, error: CallFailed, body: JsonObject) -> bool:
        return error.kind == "system_role" and self._may_fold and _has_system(body)

    def _note_fold(self, error: Suspect) -> None:
        if not self._folds:
            log.warning("%s: %s: from now on system messages are folded into the first user turn (`system: fold`)",
                        self.identity["endpoint"], error.message)  # fmt: skip
        self._folds = True

    async def _once(self, path: str, raw: bytes, body: JsonObject, read: Read[Answer]) -> Answer:
        tokens = len(raw) / 4 + _limit(body) if self._counts_tokens else 0.0
        replica = self._replicas.only or self._replicas.choose(conversation.get() or _prompt_digest(body))
        throttle = replica.throttle
        ticket = throttle.at_once(tokens) or await throttle.enter(tokens)
        try:
            answer, used = await self._sent(replica.connection, path, raw, body, read)
        except Transient as error:
            if error.retry_after:
                throttle.hold(error.retry_after)
            (throttle.refused if error.kind in BUSY else throttle.lost)(ticket)
            if error.kind == "unreachable":
                self._leave_out(replica, error)
            self._stop_if_all(error, body)
            raise
        except BaseException as error:
            throttle.lost(ticket)
            if isinstance(error, Permanent):
                self._replicas.reached(replica)
                self._stop_if_all(error, body)
            raise
        self._first.answered()
        self._replicas.reached(replica)
        throttle.leave(ticket, used - tokens if self._counts_tokens else 0.0)
        return answer

    def _leave_out(self, replica: Replica, error: Transient) -> None:
        """A replica that cannot be reached. Raises Refused where none can be, and none ever was."""
        self._replicas.unreachable(replica)
        if self._replicas.none_left and not self._first.any:
            fix = "check base_url, and that the servers are running"
            raise Refused(self.identity["endpoint"], f"no replica can be reached ({error.message})", fix) from None

    async def _sent(
        self, connection: Connection, path: str, raw: bytes, body: JsonObject, read: Read[Answer]
    ) -> tuple[Answer, int]:
        """The answer to one request and the tokens that it took, claimed before and booked after it."""
        claim = self._claim(len(raw), body)
        try:
            data = await connection.post(path, raw)
        except BaseException as error:
            self._book_lost(claim, error)
            raise
        answer = self._booked(data, claim, read)
        return answer, claim.used

    def _claim(self, size: int, body: JsonObject) -> Claim:
        most = _limit(body)
        return Claim(self.meter.claim(size, most), size, most)

    def _book_lost(self, claim: Claim, error: BaseException) -> None:
        """Book a request that failed: what its error says, else nothing where it was refused, else all it can be."""
        used = reported_usage(error.answer, claim.size, claim.max_tokens) if isinstance(error, CallFailed) else None
        lost = not isinstance(error, CaiError) or (isinstance(error, CallFailed) and error.kind in LOST)
        self.meter.settle(claim.most, used or (claim.most if lost else Usage()), claim.size if used else 0)

    def _booked(self, data: Any, claim: Claim, read: Read[Answer]) -> Answer:
        """What `read` finds in an answer, which is booked whatever is found. Raises CaiError."""
        used = reported_usage(data, claim.size, claim.max_tokens)
        if used and not used.completion_tokens and _text_in(data):
            used = None  # a text of no tokens
        paid = used or estimated_usage(claim.size, _text_in(data))
        try:
            if has_error(data):
                raise body_error(self._endpoint, data)
            return read(data, paid)
        except CallFailed as error:
            if used is None and error.kind not in PAID:
                paid = Usage()  # an error, or an answer that the server broke off
            raise
        except _MALFORMED as error:
            what = f"the answer has an unexpected shape: {type(error).__name__} {error}"[:200]
            raise Transient("malformed", what) from None
        finally:
            claim.used = paid.prompt_tokens + paid.completion_tokens
            self.meter.settle(claim.most, paid, claim.size)

    def _stop_if_all(self, error: CallFailed, body: JsonObject) -> None:
        """Raises Refused where this error concerns every request, and not this one."""
        if error.kind == "system_role" and (self._may_fold or not _has_system(body)):
            return  # it is folded, or the prompt's own turns are refused
        if error.kind == "unauthorized" and not self._replicas.all[0].connection.has_key:
            what = f"wants a key, and none was sent ({error.message})"
            raise Refused(
                self.identity["endpoint"], what, "set api_key_env to the name of the variable with the key"
            ) from None
        if refused := self._first.failed(error, _prompt_digest(body)):
            raise refused from None


@dataclass(slots=True)
class Claim:
    """What was set aside for one request, and in the end what it used."""

    most: Usage
    size: int
    """Bytes of the request."""
    max_tokens: int
    used: int = 0
    """Tokens."""


def folded(body: JsonObject) -> JsonObject:
    """A chat request with its system messages at the head of the first user turn; itself where it has none."""
    if not _has_system(body):
        return body
    turns = body["messages"]
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    first = next((turn for turn in rest if turn["role"] == "user"), None)
    if first is None:
        rest.insert(0, {"role": "user", "content": "\n\n".join(system)})
    else:
        first["content"] = "\n\n".join((*system, first["content"]))
    return {**body, "messages": rest}


def _has_system(body: JsonObject) -> bool:
    return any(turn["role"] == "system" for turn in body.get("messages", ()))


def _throttle(endpoint: Endpoint) -> Throttle:
    return Throttle(
        endpoint.concurrency,
        requests_per_minute=endpoint.requests_per_minute,
        tokens_per_minute=endpoint.tokens_per_minute,
    )


def _prompt_digest(body: JsonObject) -> str:
    return digest(to_json(body.get("messages", body.get("prompt"))).decode())


def _limit(body: JsonObject) -> int:
    """The most tokens of an answer."""
    given = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    return int(given) if isinstance(given, int | float) else 0


def _text_in(data: Any) -> str:
    """All text of an answer, for an estimate of its tokens: of any shape, and short where the shape is unknown."""
    if isinstance(data, str):
        return data
    if isinstance(data, dict):
        return "".join(_text_in(data[name]) for name in _TEXTS if name in data)
    return "".join(map(_text_in, data)) if isinstance(data, list) else ""


_TEXTS = ("choices", "message", "content", "text", "thinking", "reasoning", "reasoning_content", "output", "refusal")
