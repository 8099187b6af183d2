"""The commonest answer taken off a connection in one piece: HTTP/1.1 200 with its length, short, and nothing to heed.

Parser, queue and stream of aiohttp take a tenth of a run against a fast endpoint over such answers. Whatever is not
of that kind (another status, chunks, news, a connection that is to be closed, a long answer, half of one) is handed to
them as it came in, so that what HTTP allows and forbids stays theirs to know.

Left out on purpose: every header but the two that a caller asks about.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp.client_proto import ResponseHandler

ShortResponse = tuple[str, bytes]
"""Content type and body of an answer of that kind."""

SHORT = 1 << 16
"""Bytes of an answer that is taken here; a longer one is for a stream."""
_HEAD = re.compile(
    rb"HTTP/1\.1 200 [^\r\n\0]*\r\n"
    rb"(?:(?i:content-length:[ \t]*(\d{1,5})[ \t]*|content-type:[ \t]*([^\r\n\0]{0,200}))\r\n"
    rb"|(?!(?i:content-length|content-type|transfer-encoding|connection)[ \t]*:)"
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,200}:[^\r\n\0]{0,2000}\r\n){0,60}+\r\n"
)
"""A head with nothing in it that an HTTP parser would look at twice; its length and its type."""


class ResponseReader(asyncio.Protocol):
    """Stands between a connection's transport and the handler that aiohttp gave it."""

    def __init__(self, handler: ResponseHandler, *, timed: bool = False) -> None:
        """`timed`: the handler times the silences between bytes, and has to hear all of them."""
        self._handler, self._timed, self._held = handler, timed, b""
        self._waiting: asyncio.Future[ShortResponse | None] | None = None

    def next(self) -> asyncio.Future[ShortResponse | None]:
        """The next answer; None as soon as it is seen to be the handler's, which has it then."""
        self._waiting = waiting = asyncio.get_running_loop().create_future()
        if self._timed:
            self._tell(None)
        return waiting

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # the handler is at it, or nobody has asked for anything
            return self._handler.data_received(data)
        if self._held:
            data, self._held = self._held + data, b""
        try:
            found = parse_response(data)
        except ValueError:
            return self._hand_on(data)
        if found is None:
            self._held = data
        else:
            self._tell(found)

    def eof_received(self) -> None:
        self._hand_on(self._held)
        self._handler.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._held:
            self._handler.data_received(self._held)
        self._handler.connection_lost(error)
        self._tell(None)  # the handler knows what to say of it

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _hand_on(self, data: bytes) -> None:
        self._held = b""
        if data:
            self._handler.data_received(data)
        self._tell(None)

    def _tell(self, found: ShortResponse | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(found)


def parse_response(data: bytes) -> ShortResponse | None:
    """The answer that `data` is; None where more of it is to come. Raises ValueError where it is of another kind."""
    found = _HEAD.match(data)
    if found is None:
        if len(data) < SHORT and data.startswith(b"HTTP/1.1 200 ") and b"\r\n\r\n" not in data and _strict(data):
            return None
        raise ValueError
    head = found[0].lower()
    if found[1] is None or head.count(b"\r\ncontent-length:") > 1 or head.count(b"\r\ncontent-type:") > 1:
        raise ValueError
    whole = found.end() + int(found[1])
    if whole > SHORT or whole < len(data):
        raise ValueError
    return ((found[2] or b"").decode("latin-1"), data[found.end() :]) if whole == len(data) else None


def _strict(head: bytes) -> bool:
    """Whether all lines so far end as they should; a parser may take a head for ended that ends otherwise."""
    return head.count(b"\n") == head.count(b"\r\n")
