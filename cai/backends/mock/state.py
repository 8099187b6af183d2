"""The state of the mock server: its options, and what it has received and answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated

from aiohttp import web
from pydantic import Field
from pydantic_core import to_json

from cai.backends.mock.answers import SHAPES, answer_text, prompt_length, request_digest
from cai.backends.mock.faults import Fault, draw_fault, error_response
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

    def reply(self, path: str, body: JsonObject, raw: bytes, *, batch: bool = False) -> tuple[Fault | None, bytes]:
        """The fault drawn for this try of `body`, and the answer's JSON."""
        key = request_digest(path, raw)
        self.asked[key] += 1
        fault = draw_fault(self.options.faults, key, self.asked[key], self.options.seed, batch=batch)
        text, finish, words = answer_text(key, body)
        answer = to_json(SHAPES[path](key, body, "" if fault == "empty" else text, finish, words))
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
