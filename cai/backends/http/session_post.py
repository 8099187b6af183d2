"""A JSON body posted through aiohttp's public client, for when the internals used by `fast_post` are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import aiohttp
from yarl import URL

from cai.core.errors import Permanent

Response = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""


class Poster(Protocol):
    """Posts bodies to one URL."""

    async def __call__(self, body: bytes, most: int) -> Response:
        """The response, whose body has at most `most` bytes. Raises what aiohttp raises, and Permanent("too_large")."""
        ...

    def close(self) -> None:
        """Close the idle connections that it keeps itself."""
        ...


class SessionPost:
    """Posts to one URL through `ClientSession.request`; connections are kept by the session."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, seconds: float) -> None:
        """`seconds` from the start of a request to the end of its response."""
        self._session, self._url, self._seconds = session, url, seconds

    async def __call__(self, body: bytes, most: int) -> Response:
        async with asyncio.timeout(self._seconds):
            payload = aiohttp.BytesPayload(body, content_type="application/json")
            return await session_response(self._session, "POST", self._url, payload, most)

    def close(self) -> None:
        """Nothing: closing the session closes its connections."""


async def session_response(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    data: aiohttp.BytesPayload | aiohttp.FormData | None,
    most: int,
) -> Response:
    """The response to any request, redirects not followed. Raises what aiohttp raises, and Permanent("too_large")."""
    async with session.request(method, url, data=data, allow_redirects=False) as response:
        raw = await read_body(response.content, response.headers.get("Content-Length"), most)
        return response.status, response.headers, raw


async def read_body(stream: aiohttp.StreamReader, length: str | None, most: int) -> bytes:
    """A body to its end. Raises Permanent("too_large") as soon as it has more than `most` bytes."""
    if length is not None and int(length) <= most:
        return await stream.read()
    parts, size = [], 0
    while part := await stream.readany():
        parts.append(part)
        size += len(part)
        if size > most:
            raise Permanent("too_large", f"the answer is larger than {most >> 20} MiB")
    return b"".join(parts)
