"""Posts JSON bodies over aiohttp's connection pool, without the layers that `ClientSession` adds to each request.

`ClientSession.post` takes twice as long to prepare a request (merging and copying headers, cookies, redirects, a writer
task, timers) as it takes to send it and to parse the answer. All bodies for one URL have the same headers, so those are
written once. Connecting, TLS and the parsing of HTTP are aiohttp's. The internals used are in `aiohttp_internals`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection as PooledConnection
from yarl import URL

from cai.backends.http.deadline import Deadline
from cai.backends.http.fast_response import ResponseReader
from cai.backends.http.session_post import Response, read_body

READ = 1 << 14
"""Bytes that asyncio allocates before each read: its default of 256 KiB for an answer of two fragments the heap."""
KEEP = 60.0
"""Seconds that an idle connection is kept."""


class FastPost:
    """Posts to one URL. It belongs to the event loop that made it."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        url: URL,
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        seconds: float,
    ) -> None:
        """`seconds` from sending to the end of the answer, and at most as many to connect."""
        self._connector, self._limits, self._seconds, self._deadline = connector, limits, seconds, Deadline(seconds)
        self._idle: list[tuple[PooledConnection, ResponseReader, float]] = []
        # the pool needs a request to know the endpoint; this one is never sent
        self._target = ClientRequest("POST", url, headers=dict(headers), loop=asyncio.get_running_loop())
        lines = [f"{name}: {value}\r\n" for name, value in self._target.headers.items() if name != "Content-Length"]
        self._head = f"POST {url.raw_path_qs} HTTP/1.1\r\n{''.join(lines)}Content-Length: ".encode("latin-1")

    async def __call__(self, body: bytes, most: int) -> Response:
        """The response, whose body has at most `most` bytes. Raises what aiohttp raises, and Permanent("too_large")."""
        connection, reader = self._kept() or await self._connected()
        try:
            transport = connection.transport
            if transport is None:
                raise aiohttp.ServerDisconnectedError
            transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            answer = reader.next()
            due = self._deadline.watch(answer)
            try:
                found = await answer
            finally:
                self._deadline.done(answer)
            if found is None:
                async with asyncio.timeout_at(due):
                    return await self._parsed(connection, reader, most)
            self._idle.append((connection, reader, time.monotonic()))
            return 200, {"Content-Type": found[0]}, found[1]
        except BaseException:
            connection.close()
            raise

    async def _parsed(self, connection: PooledConnection, reader: ResponseReader, most: int) -> Response:
        """The response, read by aiohttp's parser."""
        if (protocol := connection.protocol) is None:
            raise aiohttp.ServerDisconnectedError
        protocol.start_timeout()
        message, payload = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:  # informational, such as Continue; 101 is final
            message, payload = await protocol.read()
        if payload.is_eof() and payload.total_bytes <= most:  # all of it has arrived, as most often
            raw = payload.read_nowait()
        else:
            raw = await read_body(payload, message.headers.get("Content-Length"), most)
        if protocol.should_close:
            connection.close()
        else:
            self._idle.append((connection, reader, time.monotonic()))
        return message.code, message.headers, raw

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[0].close()

    def _kept(self) -> tuple[PooledConnection, ResponseReader] | None:
        """The connection used last, if it can be used again. Kept here, because a look-up in the pool takes longer."""
        while self._idle:
            connection, reader, since = self._idle.pop()
            protocol = connection.protocol
            fresh = time.monotonic() - since < KEEP
            if fresh and protocol is not None and protocol.is_connected() and not protocol.should_close:
                return connection, reader
            connection.close()
        return None

    async def _connected(self) -> tuple[PooledConnection, ResponseReader]:
        async with asyncio.timeout(self._seconds):  # the DNS lookup has no time limit of its own
            connection = await self._connector.connect(self._target, traces=[], timeout=self._limits)
        try:
            return connection, self._reader(connection)
        except BaseException:
            connection.close()
            raise

    def _reader(self, connection: PooledConnection) -> ResponseReader:
        """Put a reader between the new connection's transport and aiohttp's handler."""
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        if hasattr(transport, "max_size"):
            transport.max_size = READ
        # once per connection: the parser goes on with the next response where the last one ended
        read = self._limits.sock_read
        protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_timeout=read)
        transport.set_protocol(reader := ResponseReader(protocol, timed=read is not None))
        return reader
