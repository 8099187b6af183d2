"""The state of the mock server: its options, and what it has received and answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field
from pydantic_core import to_json

from cai.backends.mock.answers import SHAPES, answer_text, prompt_length, request_digest
from cai.backends.mock.faults import Fault, draw_fault, error_response
from cai.core.config import Knobs

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Options(Knobs):
    """What the server does to its clients."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes any that is free."""
    latency: Seconds = 0.02
    """How long an answer takes."""
    faults: dict[Fault, Rate] = Field(default_factory=dict)
    """How often what goes wrong."""
    retry_after: Seconds | None = None
    """What a 429 or 503 names; None: it names nothing."""
    stall: Seconds = 30.0
    """How long a stalled or dripping answer takes."""
    capacity: Count | None = None
    """Requests served at once; more are refused with 429."""
    queue: bool = False
    """More than `capacity` wait instead."""
    model: str | None = None
    """The only model there is; None: whatever is asked for."""
    key: str | None = None
    """The key that is asked for; None: none is."""
    context: Count | None = None
    """Characters that a prompt may have."""
    batch_seconds: Seconds = 0.5
    """How long a batch takes."""
    seed: int = 0
    """Another seed, other faults."""


class Mock:
    """A server's state: what it was told to do, and what it has done."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.url = ""
        """The base URL, once it listens."""
        self.asked: Counter[bytes] = Counter()
        self.answered: Counter[bytes] = Counter()
        self.faults: Counter[str] = Counter()
        self.bytes_read = self.in_flight = self.most_in_flight = 0
        self.places = asyncio.Semaphore(options.capacity or 1)

    def reply(self, path: str, body: dict[str, Any], raw: bytes, *, batch: bool = False) -> tuple[Fault | None, bytes]:
        """The fault drawn for this asking of `body`, and the answer's JSON."""
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

    def refuses(self, request: web.Request, body: Any) -> web.Response | None:
        """The error for a request that no other asking would help."""
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
