"""The state of the mock server: its options, and what it has received and answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import Field
from pydantic_core import to_json

from cai.backends.mock.answers import SHAPES, answer_text, prompt_length, request_digest
from cai.backends.mock.faults import Fault, draw_fault, error_response
from cai.backends.mock.replay import read_recorded
from cai.core.config import Knobs
from cai.core.types import JsonObject

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Options(Knobs):
    """How the server answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes any free one."""
    latency: Seconds = 0.02
    """How long an answer takes."""
    faults: dict[Fault, Rate] = Field(default_factory=dict)
    """The rate of each fault."""
    retry_after: Seconds | None = None
    """The Retry-After of a 429 or 503; None: without one."""
    stall: Seconds = 30.0
    """How long a `stall` or `drip` answer takes."""
    capacity: Count | None = None
    """Requests served at once; more are refused with 429."""
    queue: bool = False
    """Requests above `capacity` wait instead."""
    model: str | None = None
    """The only model; None: any model is accepted."""
    key: str | None = None
    """The required key; None: no key is required."""
    context: Count | None = None
    """The most characters of a prompt."""
    batch_seconds: Seconds = 0.5
    """How long a batch takes."""
    seed: int = 0
    """Draws other faults."""
    replay: Path | None = None
    """A recorded answer, given in place of the server's own."""
    replay_if: str = ""
    """Only to requests that hold this text."""
    replay_first: Count | None = None
    """Only to so many requests, the first ones."""


class Mock:
    """A server's options, and counts of what it has received and answered."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.url = ""
        """The base URL, once the server listens."""
        self.asked: Counter[bytes] = Counter()
        self.answered: Counter[bytes] = Counter()
        self.faults: Counter[str] = Counter()
        self.bytes_read = self.in_flight = self.most_in_flight = 0
        self.slots = asyncio.Semaphore(options.capacity or 1)
        self.used: Counter[str] = Counter()
        """Prompt and completion tokens of all answers, as they say it."""
        self.replayed = 0
        self._recorded = read_recorded(options.replay) if options.replay else None

    def recorded(self, raw: bytes) -> web.Response | None:
        """The recorded answer, where this request is to have it."""
        options, recorded = self.options, self._recorded
        if recorded is None or options.replay_if.encode() not in raw:
            return None
        if options.replay_first is not None and self.replayed >= options.replay_first:
            return None
        self.replayed += 1
        if isinstance(recorded.body, dict):
            self.count(recorded.body.get("usage"))
        return recorded.response()

    def count(self, usage: object) -> None:
        """Add up what an answer says that it used."""
        for name, value in usage.items() if isinstance(usage, dict) else ():
            kind = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}.get(name, name)
            if kind in ("prompt_tokens", "completion_tokens") and isinstance(value, int):
                self.used[kind] += value

    def reply(self, path: str, body: JsonObject, raw: bytes, *, batch: bool = False) -> tuple[Fault | None, bytes]:
        """The fault drawn for this try of `body`, and the answer's JSON."""
        key = request_digest(path, raw)
        self.asked[key] += 1
        fault = draw_fault(self.options.faults, key, self.asked[key], self.options.seed, batch=batch)
        text, finish, words = answer_text(key, body)
        shape = SHAPES[path](key, body, "" if fault == "empty" else text, finish, words)
        if fault is None or not fault.isdecimal():
            self.count(shape["usage"])
        answer = to_json(shape)
        if fault:
            self.faults[fault] += 1
        else:
            self.answered[key] += 1
        return fault, answer

    def refuses(self, request: web.Request, body: object) -> web.Response | None:
        """The error for a request that would fail at every try; None for a valid one."""
        options = self.options
        given = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if options.key is not None and given != options.key:
            return error_response(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        if not isinstance(body, dict):
            return error_response(400, "The body is no JSON object")
        if options.model is not None and body.get("model") != options.model:
            return error_response(404, f"The model `{body.get('model')}` does not exist", "model_not_found")
        if options.context is not None and prompt_length(body) > options.context:
            words = f"This model's maximum context length is {options.context // 4} tokens"
            return error_response(400, words, "context_length_exceeded")
        return None
