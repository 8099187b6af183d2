"""Reads the most common response in one step: a short HTTP/1.1 200 with a Content-Length and no special headers.

For such responses, aiohttp's parser, queue and stream take a tenth of the time of a run against a fast endpoint.
Everything else (another status, chunks, an informational response, `Connection: close`, a long or an incomplete
response) is passed to them unchanged, so that aiohttp alone decides what is valid HTTP.

Only the two headers that callers need are returned.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp.client_proto import ResponseHandler

ShortResponse = tuple[str, bytes]
"""Content type and body."""

SHORT = 1 << 16
"""The most bytes of a response that is read here."""
_HEAD = re.compile(
    rb"HTTP/1\.1 200 [^\r\n\0]*\r\n"
    rb"(?:(?i:content-length:[ \t]*(\d{1,5})[ \t]*|content-type:[ \t]*([^\r\n\0]{0,200}))\r\n"
    rb"|(?!(?i:content-length|content-type|transfer-encoding|connection)[ \t]*:)"
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,200}:[^\r\n\0]{0,2000}\r\n){0,60}+\r\n"
)
"""A response head with nothing in it that needs a full HTTP parser; its groups are the length and the type."""


class ResponseReader(asyncio.Protocol):
    """The protocol between a connection's transport and aiohttp's handler."""

    def __init__(self, handler: ResponseHandler, *, timed: bool = False) -> None:
        """`timed`: the handler limits the time between bytes, so it must get all of them."""
        self._handler, self._timed, self._held = handler, timed, b""
        self._waiting: asyncio.Future[ShortResponse | None] | None = None

    def next(self) -> asyncio.Future[ShortResponse | None]:
        """The next response; None as soon as it is clear that the handler must read it, which then has its bytes."""
        self._waiting = waiting = asyncio.get_running_loop().create_future()
        if self._timed:
            self._resolve(None)
        return waiting

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # the handler is reading, or no request was sent
            return self._handler.data_received(data)
        if self._held:
            data, self._held = self._held + data, b""
        try:
            found = parse_response(data)
        except ValueError:
            return self._pass_on(data)
        if found is None:
            self._held = data
        else:
            self._resolve(found)

    def eof_received(self) -> None:
        self._pass_on(self._held)
        self._handler.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._held:
            self._handler.data_received(self._held)
        self._handler.connection_lost(error)
        self._resolve(None)  # the handler has the error

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _pass_on(self, data: bytes) -> None:
        self._held = b""
        if data:
            self._handler.data_received(data)
        self._resolve(None)

    def _resolve(self, found: ShortResponse | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(found)


def parse_response(data: bytes) -> ShortResponse | None:
    """The response in `data`; None if it is incomplete. Raises ValueError if it is of another kind."""
    found = _HEAD.match(data)
    if found is None:
        if len(data) < SHORT and data.startswith(b"HTTP/1.1 200 ") and b"\r\n\r\n" not in data and _is_strict(data):
            return None
        raise ValueError
    head = found[0].lower()
    if found[1] is None or head.count(b"\r\ncontent-length:") > 1 or head.count(b"\r\ncontent-type:") > 1:
        raise ValueError
    whole = found.end() + int(found[1])
    if whole > SHORT or whole < len(data):
        raise ValueError
    return ((found[2] or b"").decode("latin-1"), data[found.end() :]) if whole == len(data) else None


def _is_strict(head: bytes) -> bool:
    """Whether all lines so far end in CRLF; a lenient parser may accept other line ends as the end of the head."""
    return head.count(b"\n") == head.count(b"\r\n")
