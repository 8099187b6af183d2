"""Faults in the answers of the mock server, drawn so that a run can be repeated with the same faults.

Whether and how the n-th try of a request fails depends only on the request, on n and on the server's seed.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import Mapping
from typing import Literal

from aiohttp import web

Fault = Literal[
    "429", "500", "503", "529", "reset", "stall", "malformed", "type", "empty", "truncated", "drip",
    "batch_error", "batch_expired", "batch_twice",
]  # fmt: skip
"""Status codes; connection reset in the middle of the answer; late answer; cut JSON; HTML; no text; fewer bytes than
announced; a few bytes at a time; and in batches a failed request, one that was not processed, a line sent twice."""
BATCH: tuple[Fault, ...] = ("batch_error", "batch_expired", "batch_twice")
PIECES = 20
"""How many pieces a `drip` answer is sent in."""
MESSAGES = {
    429: ("rate_limit_error", "Too many requests"),
    500: ("server_error", "The server had an error"),
    503: ("overloaded_error", "The server is starting"),
    529: ("overloaded_error", "Overloaded"),
}


def draw_fault(
    faults: Mapping[Fault, float], digest: bytes, attempt: int, seed: int, *, batch: bool = False
) -> Fault | None:
    """The fault of this try, by the rates; None for a good answer."""
    if not faults:
        return None
    rates = {fault: rate for fault, rate in faults.items() if (fault in BATCH) == batch}
    drawn = hashlib.sha256(digest + f"{attempt} {seed}".encode()).digest()
    chance = int.from_bytes(drawn[:8], "big") / 2**64
    for fault, rate in rates.items():
        chance -= rate
        if chance < 0:
            return fault
    return None


def overload_response(status: int, retry_after: float | None = None) -> web.Response:
    """An error in the format of both APIs."""
    kind, words = MESSAGES[status]
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return error_response(status, words, kind, headers)


def error_response(status: int, words: str, code: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    """An error with these words."""
    body = {"type": "error", "error": {"message": words, "type": code or "invalid_request_error", "code": code or None}}
    return web.json_response(body, status=status, headers=headers)


async def faulty_response(request: web.Request, fault: Fault, body: bytes, seconds: float) -> web.StreamResponse:
    """`body`, sent with the fault."""
    if fault == "malformed":
        return web.Response(body=body[: len(body) // 2], content_type="application/json")
    if fault == "type":
        return web.Response(text="<html><body><h1>Welcome</h1></body></html>", content_type="text/html")
    if fault == "stall":
        await asyncio.sleep(seconds)
        return web.Response(body=body, content_type="application/json")
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    if fault == "drip":
        await _drip(response, body, seconds)
    else:
        await response.write(body[: len(body) // 2])
        _cut(request, abruptly=fault == "reset")
    return response


async def _drip(response: web.StreamResponse, body: bytes, seconds: float) -> None:
    size = len(body) // PIECES + 1
    for start in range(0, len(body), size):
        try:
            await response.write(body[start : start + size])
        except ConnectionResetError:
            return  # the client has hung up
        await asyncio.sleep(seconds / PIECES)


def _cut(request: web.Request, *, abruptly: bool) -> None:
    if (transport := request.transport) is None:
        return
    if abruptly and (connection := transport.get_extra_info("socket")):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST in place of FIN
        transport.abort()
    else:
        transport.close()
