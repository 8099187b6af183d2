"""Small servers that answer as they are told, on loopback, for tests of what speaks to endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from cai.backends.http.connection import Connection
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.core.types import Message, Request, Sampling

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ASKED = Request((Message("system", "Be brief."), Message("user", "Hello?")), Sampling(0.7, 0.9, 64), seed=7)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The base URL of a server that answers everything by `handler`."""
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def always(body: bytes | str = "{}", *, status: int = 200, kind: str = "application/json", **headers: str) -> Handler:
    """A handler with one answer; `headers` with _ for -."""
    raw = body.encode() if isinstance(body, str) else body
    more = {name.replace("_", "-"): value for name, value in headers.items()}

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=raw, status=status, headers={"Content-Type": kind, **more})

    return handler


def chat_answer(**message: Any) -> dict[str, Any]:
    """A chat completion with this message."""
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


def connection(url: str, key: str = "", **options: Any) -> Connection:
    """A connection to `url`, without throttle and retry."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Connection(OpenAIEndpoint.model_validate({"model": "m", "base_url": url, **options}), headers, key)
