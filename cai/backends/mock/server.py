"""The mock server: answers that depend on what is asked alone, faults and latency as ordered, and a count of it all.

`GET /stats` says how many requests came and were answered; with `?digests=1` also how often each was, by its digest.

Left out on purpose: streaming, and security beyond listening on loopback only.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field
from pydantic_core import from_json, to_json

from cai.backends.mock.answers import chat, digest, message, prompt_length, speak, text_completion
from cai.backends.mock.faults import Fault, draw, error, refusal, spoiled
from cai.core.config import Knobs
from cai.core.errors import Mistake

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Shape = Callable[[bytes, dict[str, Any], str, str, int], dict[str, Any]]
SHAPES: dict[str, Shape] = {
    "/v1/chat/completions": chat,
    "/v1/completions": text_completion,
    "/v1/messages": message,
}


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
        self._places = asyncio.Semaphore(options.capacity or 1)

    def app(self) -> web.Application:
        """The routes of both APIs."""
        from cai.backends.mock.batches import add_routes

        app = web.Application(client_max_size=256 << 20)
        for path in SHAPES:
            app.router.add_post(path, self._answer)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/stats", self._stats)
        add_routes(app, self)
        return app

    def reply(self, path: str, body: dict[str, Any], raw: bytes, *, batch: bool = False) -> tuple[Fault | None, bytes]:
        """The fault drawn for this asking of `body`, and the answer's JSON."""
        key = digest(path, raw)
        self.asked[key] += 1
        fault = draw(self.options.faults, key, self.asked[key], self.options.seed, batch=batch)
        text, finish, words = speak(key, body)
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
            return error(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        if not isinstance(body, dict):
            return error(400, "The body is no JSON object")
        if options.model is not None and body.get("model") != options.model:
            return error(404, f"The model `{body.get('model')}` does not exist", "model_not_found")
        if options.context is not None and prompt_length(body) > options.context:
            words = f"This model's maximum context length is {options.context // 4} tokens"
            return error(400, words, "context_length_exceeded")
        return None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.bytes_read += len(raw)
        try:
            body = from_json(raw)
        except ValueError:
            body = None
        if refused := self.refuses(request, body):
            return refused
        if self.options.capacity and not self.options.queue and self.in_flight >= self.options.capacity:
            self.faults["over capacity"] += 1
            return refusal(429, self.options.retry_after)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._served(request, body)
        finally:
            self.in_flight -= 1

    async def _served(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        fault, answer = self.reply(request.path, body, to_json(body))
        if fault and fault.isdecimal():
            return refusal(int(fault), self.options.retry_after if fault in ("429", "503") else None)
        if self.options.queue:
            async with self._places:
                await asyncio.sleep(self.options.latency)
        else:
            await asyncio.sleep(self.options.latency)
        if fault and fault != "empty":
            return await spoiled(request, fault, answer, self.options.stall)
        return web.Response(body=answer, content_type="application/json")

    async def _models(self, request: web.Request) -> web.Response:
        name = self.options.model or "mock"
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "cai"}]})

    async def _stats(self, request: web.Request) -> web.Response:
        said: dict[str, Any] = {
            "asked": self.asked.total(),
            "answered": self.answered.total(),
            "distinct": len(self.asked),
            "bytes_read": self.bytes_read,
            "most_in_flight": self.most_in_flight,
            "faults": dict(self.faults),
        }
        if request.query.get("digests"):
            said["digests"] = {key.hex(): [count, self.answered[key]] for key, count in self.asked.items()}
        return web.json_response(said)


@asynccontextmanager
async def running(options: Options | None = None) -> AsyncIterator[Mock]:
    """The server, listening while the context is open. Raises Mistake where its port is taken."""
    mock = Mock(options or Options(port=0))
    runner = web.AppRunner(mock.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, mock.options.host, mock.options.port, backlog=4096)
    try:
        try:
            await site.start()
        except OSError as taken:
            where = f"{mock.options.host}:{mock.options.port}"
            raise Mistake(where, f"cannot be listened on: {taken.strerror}", "choose another --port") from None
        mock.url = f"http://{mock.options.host}:{runner.addresses[0][1]}/v1"
        yield mock
    finally:
        await runner.cleanup()


def serve(options: Options, ready: Callable[[str], None]) -> None:
    """Run until interrupted; `ready` is told the base URL as soon as it answers. Raises Mistake."""

    async def forever() -> None:
        async with running(options) as mock:
            ready(mock.url)
            await asyncio.Event().wait()

    asyncio.run(forever())
