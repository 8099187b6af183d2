"""The mock server: answers that depend only on the request, with the configured faults and latency, all counted.

`GET /stats` returns how many requests were received and answered; `?digests=1` adds both numbers per request digest.

Left out on purpose: streaming, and security beyond listening on loopback only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from pydantic_core import from_json, to_json

from cai.backends.mock.answers import SHAPES
from cai.backends.mock.batches import add_batch_routes
from cai.backends.mock.faults import faulty_response, overload_response
from cai.backends.mock.state import Mock, Options
from cai.core.errors import Mistake
from cai.core.types import JsonObject


class _Handlers:
    """The request handlers of one mock server."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """POST to one of SHAPES."""
        mock, raw = self._mock, await request.read()
        mock.bytes_read += len(raw)
        try:
            body = from_json(raw)
        except ValueError:
            body = None
        if refused := mock.refuses(request, body):
            return refused
        if recorded := mock.recorded(raw):
            return recorded
        if mock.options.capacity and not mock.options.queue and mock.in_flight >= mock.options.capacity:
            mock.faults["over capacity"] += 1
            return overload_response(429, mock.options.retry_after)
        mock.in_flight += 1
        mock.most_in_flight = max(mock.most_in_flight, mock.in_flight)
        try:
            return await self._answered(request, body)
        finally:
            mock.in_flight -= 1

    async def _answered(self, request: web.Request, body: JsonObject) -> web.StreamResponse:
        mock, options = self._mock, self._mock.options
        fault, answer = mock.reply(request.path, body, to_json(body))
        if fault and fault.isdecimal():
            return overload_response(int(fault), options.retry_after if fault in ("429", "503") else None)
        if options.queue:
            async with mock.slots:
                await asyncio.sleep(options.latency)
        else:
            await asyncio.sleep(options.latency)
        if fault and fault != "empty":
            return await faulty_response(request, fault, answer, options.stall)
        return web.Response(body=answer, content_type="application/json")

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        name = self._mock.options.model or "mock"
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "cai"}]})

    async def stats(self, request: web.Request) -> web.Response:
        """GET /stats."""
        mock = self._mock
        counts: dict[str, Any] = {
            "asked": mock.asked.total(),
            "answered": mock.answered.total(),
            "distinct": len(mock.asked),
            "bytes_read": mock.bytes_read,
            "used": dict(mock.used),
            "replayed": mock.replayed,
            "most_in_flight": mock.most_in_flight,
            "faults": dict(mock.faults),
        }
        if request.query.get("digests"):
            counts["digests"] = {key.hex(): [count, mock.answered[key]] for key, count in mock.asked.items()}
        return web.json_response(counts)


def _application(mock: Mock) -> web.Application:
    """The routes of both APIs."""
    app, handlers = web.Application(client_max_size=256 << 20), _Handlers(mock)
    for path in SHAPES:
        app.router.add_post(path, handlers.answer)
    app.router.add_get("/v1/models", handlers.models)
    app.router.add_get("/stats", handlers.stats)
    add_batch_routes(app, mock)
    return app


@asynccontextmanager
async def running(options: Options | None = None) -> AsyncIterator[Mock]:
    """The server, listening while the context is open. Raises Mistake where its port is taken."""
    mock = Mock(options or Options(port=0))
    runner = web.AppRunner(_application(mock), access_log=None, shutdown_timeout=0.1)
    try:
        await runner.setup()
        site = web.TCPSite(runner, mock.options.host, mock.options.port, backlog=4096)
        try:
            await site.start()
        except OSError as taken:
            where = f"{mock.options.host}:{mock.options.port}"
            raise Mistake(where, f"the server cannot listen here: {taken.strerror}", "choose another --port") from None
        mock.url = f"http://{mock.options.host}:{runner.addresses[0][1]}/v1"
        yield mock
    finally:
        await runner.cleanup()


def serve(options: Options, ready: Callable[[str], None]) -> None:
    """Run until interrupted; `ready` is called with the base URL once the server listens. Raises Mistake."""

    async def forever() -> None:
        async with running(options) as mock:
            ready(mock.url)
            await asyncio.Event().wait()

    asyncio.run(forever())
