"""The connections to one endpoint: JSON is posted over a pool, and everything that can go wrong is a typed error.

Redirects are not followed, compression is not requested and undone up to a size (a small answer cannot become a huge
one), cookies are not kept, and no proxy or .netrc of the environment is used. The key is removed from every answer
before anything else sees it.

Left out on purpose: streaming. A critique is read whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp.http import HttpProcessingError
from pydantic_core import from_json
from yarl import URL

from cai.backends.http.aiohttp_internals import fast_post_class
from cai.backends.http.answer_body import read_answer
from cai.backends.http.endpoint import Endpoint
from cai.backends.http.errors import status_error
from cai.backends.http.session_post import Poster, Response, SessionPost, session_response
from cai.core.errors import CallFailed, Refused, Transient
from cai.core.types import JsonObject

MAX_BYTES = 32 << 20
"""Of one answer."""
_LOST = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What a request without an answer raises; a time-out is an OSError too."""
WORD = 8
"""A key of letters alone and below this length may be a word such as `EMPTY`: it is taken out of errors alone."""


class Connection:
    """A pool of connections to one endpoint. It opens with the first request and belongs to that event loop."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], key: str, *, alone: bool = True) -> None:
        """`alone`: whether there is no other replica that could answer in its place."""
        self._endpoint, self._key = endpoint, key
        self._secret = b"" if len(key) < WORD and (key.isalpha() or len(key) < WORD // 2) else key.encode()
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "cai", **headers}
        self._session: aiohttp.ClientSession | None = None
        self._posters: dict[str, Poster] = {}
        self._reached = not alone

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return bool(self._key)

    async def post(self, path: str, body: bytes) -> JsonObject:
        """The JSON that answers `body`. Raises Transient, Permanent or Refused."""
        try:
            poster = self._posters.get(path) or self._poster(path)
            status, headers, raw = await poster(body, MAX_BYTES)
        except _LOST as error:
            # from None, here and below: aiohttp's errors carry the request's headers, and so the key
            raise self._failed(error) from None
        self._reached = True
        self._require_good(f"POST {path}", status, headers, raw)
        answer: JsonObject = read_answer(raw, MAX_BYTES)
        if self._secret and (self._secret in raw or (b"\\u" in raw and self._key.isascii())):
            answer = _replaced(answer, self._key, "[key]")  # after decoding: some repeat it as \\u0073\\u006b...
        return answer

    async def fetch(
        self, method: str, path: str, data: bytes | aiohttp.FormData | None = None, most: int = MAX_BYTES
    ) -> tuple[bytes, str]:
        """Any answer of up to `most` bytes, and its type. Raises Transient, Permanent or Refused."""
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                status, headers, raw = await self._request(method, path, data, most)
        except _LOST as error:
            raise self._failed(error) from None
        self._reached = True
        self._require_good(f"{method} {path}", status, headers, raw)
        if self._secret and self._secret in raw:
            raw = raw.replace(self._secret, b"[key]")
        return raw, headers.get("Content-Type", "")

    async def close(self) -> None:
        """Close every connection."""
        for poster in self._posters.values():
            poster.close()
        if self._session is not None:
            await self._session.close()

    async def _request(self, method: str, path: str, data: bytes | aiohttp.FormData | None, most: int) -> Response:
        body = aiohttp.BytesPayload(data, content_type="application/json") if isinstance(data, bytes) else data
        return await session_response(self._open(), method, self._url(path), body, most)

    def _failed(self, error: Exception) -> Transient | Refused:
        """The error for a request that got no answer."""
        match error:
            case TimeoutError():
                return self._lost(error, "timeout", "no answer in time")
            case aiohttp.ClientPayloadError():
                return self._lost(error, "truncated", "the connection ended in the middle of the answer")
            case HttpProcessingError() | aiohttp.ClientResponseError():  # the session wraps the one in the other
                return Transient("malformed", "the answer is not HTTP")
        return self._lost(error, "connection", f"{type(error).__name__}: {error}")

    def _require_good(self, what: str, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        if not 200 <= status < 300:
            where = what.replace(" ", f" {self._endpoint.place}", 1)
            text = self._redacted(raw)
            error = status_error(self._endpoint, where, status, headers, text)
            if isinstance(error, CallFailed):
                with suppress(ValueError):
                    error.answer = from_json(text)
            raise error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_connector(),
                timeout=self._limits(),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    def _limits(self) -> aiohttp.ClientTimeout:
        connect, read = self._endpoint.connect_timeout, self._endpoint.read_timeout
        return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)

    def _poster(self, path: str) -> Poster:
        session, url, seconds = self._open(), self._url(path), self._endpoint.timeout
        fast_post, connector = fast_post_class(), session.connector
        if fast_post is None or connector is None:
            self._posters[path] = SessionPost(session, url, seconds)
        else:
            headers = {**self._headers, "Content-Type": "application/json"}
            self._posters[path] = fast_post(connector, url, headers, self._limits(), seconds)
        return self._posters[path]

    def _url(self, path: str) -> URL:
        address = self._endpoint.address
        text = f"{address.scheme}://{address.netloc}{address.path.rstrip('/')}{path}"
        return URL(f"{text}?{address.query}" if address.query else text, encoded=True)

    def _redacted(self, raw: bytes) -> str:
        """The text of an error without the key, in whatever way JSON may write it."""
        text = raw[: 1 << 20].decode("utf-8", "replace")
        if not self._key:
            return text
        if "\\" in text:
            with suppress(Transient):
                text = json.dumps(_replaced(read_answer(raw, MAX_BYTES), self._key, "[key]"))
        return text.replace(self._key, "[key]")

    def _lost(self, error: Exception, kind: str, what: str) -> Transient | Refused:
        unreachable = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        what = self._redacted(what.encode())
        if isinstance(error, aiohttp.ClientConnectorCertificateError) or (unreachable and not self._reached):
            fix = "check base_url, and that the server is running"
            return Refused(self._endpoint.place, f"cannot be reached ({what})", fix)
        return Transient("unreachable" if unreachable else kind, what)


def _connector() -> aiohttp.TCPConnector:
    if fast_post_class() is None:
        # the session does not notice an answer that nobody asked for, and would give it to the next request
        return aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=300)
    return aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=300)


def _replaced(found: Any, old: str, new: str) -> Any:
    """JSON with `old` replaced in every text, names included; the same object where there is none."""
    if isinstance(found, str):
        return found.replace(old, new) if old in found else found
    if isinstance(found, dict):
        return {_replaced(name, old, new): _replaced(value, old, new) for name, value in found.items()}
    return [_replaced(value, old, new) for value in found] if isinstance(found, list) else found
