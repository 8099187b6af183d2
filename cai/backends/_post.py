"""A JSON body posted over aiohttp's pool of connections, past the layers that a request of any kind goes through.

`ClientSession.post` spends twice as long preparing a request (headers merged and copied, cookies, redirects, a task
that writes, timers) as sending it and parsing the answer takes. All bodies for a URL go with the same headers, so those
are written once. Connecting, TLS, keeping connections alive and parsing HTTP are aiohttp's.

Left out on purpose: everything but a POST of bytes; for the rest there is the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from cai.errors import Permanent

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""


class Poster:
    """Posts to one URL. It belongs to the event loop that made it."""

    def __init__(
        self, connector: aiohttp.BaseConnector, url: URL, headers: Mapping[str, str], limits: aiohttp.ClientTimeout
    ) -> None:
        self._connector, self._limits = connector, limits
        # what the pool knows the endpoint by; it is never sent itself
        self._target = ClientRequest("POST", url, headers=dict(headers), loop=asyncio.get_running_loop())
        lines = [f"{name}: {value}\r\n" for name, value in self._target.headers.items() if name != "Content-Length"]
        self._head = f"POST {url.raw_path_qs} HTTP/1.1\r\n{''.join(lines)}Content-Length: ".encode("latin-1")

    async def __call__(self, body: bytes, most: int) -> Answer:
        """The answer, whose body has at most `most` bytes. Raises what aiohttp raises, and Permanent("too_large")."""
        connection = await self._connector.connect(self._target, traces=[], timeout=self._limits)
        try:
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None:
                raise aiohttp.ServerDisconnectedError
            read = self._limits.sock_read
            protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_timeout=read)
            transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            protocol.start_timeout()
            message, payload = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:  # news, such as Continue; 101 would be an end
                message, payload = await protocol.read()
            raw = await whole(payload, message.headers.get("Content-Length"), most)
        except BaseException:
            connection.close()
            raise
        connection.release()
        return message.code, message.headers, raw


async def whole(payload: aiohttp.StreamReader, length: str | None, most: int) -> bytes:
    """A body to its end. Raises Permanent("too_large") as soon as it has more than `most` bytes."""
    if length is not None and int(length) <= most:
        return await payload.read()
    parts, size = [], 0
    while part := await payload.readany():
        parts.append(part)
        size += len(part)
        if size > most:
            raise Permanent("too_large", f"the answer is larger than {most >> 20} MiB")
    return b"".join(parts)
