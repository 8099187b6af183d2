"""One endpoint on the wire: JSON posted over a pool of connections, and every way that can go wrong as a typed error.

No redirect is followed, no compression asked for or undone (a small answer cannot become a huge one), no cookie kept,
and no proxy or .netrc of the environment heeded. The key is taken out of every answer before anything else sees it.

Left out on purpose: streaming. A critique is read whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic_core import from_json
from yarl import URL

from cai.backends._endpoint import Endpoint
from cai.backends._status import failure
from cai.errors import Permanent, Refused, Transient

MAX_BYTES = 32 << 20
"""Of one answer."""
MAX_DEPTH = 100
"""Of its JSON."""
SECRET = 16
"""From so many characters on a key is a secret, and not a word such as `EMPTY` that an answer may well hold."""


class Wire:
    """A pool of connections to one endpoint. It opens with the first request and belongs to that event loop."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], key: str) -> None:
        self._endpoint, self._key = endpoint, key
        # named, all three that aiohttp would add: it copies every header once more to find which ones to leave out
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "cai", **headers}
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._reached = False

    async def post(self, path: str, body: bytes) -> Any:
        """The JSON that answers `body`. Raises Transient, Permanent or Refused."""
        raw, kind = await self.fetch("POST", path, body)
        return _parsed(raw, kind)

    async def fetch(
        self, method: str, path: str, data: bytes | aiohttp.FormData | None = None, most: int = MAX_BYTES
    ) -> tuple[bytes, str]:
        """Any answer of up to `most` bytes, and its type. Raises Transient, Permanent or Refused."""
        session = self._session or self._open()
        url = self._urls.get(path) or self._url(path)
        body = aiohttp.BytesPayload(data, content_type="application/json") if isinstance(data, bytes) else data
        try:
            # a limit of our own: aiohttp sets a timer anew for each step of a request
            async with (
                asyncio.timeout(self._endpoint.timeout),
                session.request(method, url, data=body, allow_redirects=False) as response,
            ):
                raw = await _read(response, most)
        except TimeoutError as error:
            raise self._lost(error, "timeout", "no answer in time") from None
        except aiohttp.ClientPayloadError as error:
            raise self._lost(error, "truncated", "the connection ended within the answer") from None
        except (aiohttp.ClientError, OSError) as error:
            # from None, here and above: aiohttp's errors carry the request's headers, and so the key
            raise self._lost(error, "connection", f"{type(error).__name__}: {error}") from None
        self._reached = True
        if len(self._key) >= SECRET and self._key.encode() in raw:
            raw = raw.replace(self._key.encode(), b"[key]")
        if response.status != 200:
            raise failure(self._where(path), response.status, response.headers, self._redacted(raw))
        return raw, response.headers.get("Content-Type", "")

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connect, read = self._endpoint.connect_timeout, self._endpoint.read_timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self._session

    def _url(self, path: str) -> URL:
        address = self._endpoint.address
        text = f"{address.scheme}://{address.netloc}{address.path.rstrip('/')}{path}"
        self._urls[path] = url = URL(f"{text}?{address.query}" if address.query else text, encoded=True)
        return url

    def _where(self, path: str) -> str:
        return f"POST {self._endpoint.place}{path}"

    def _redacted(self, raw: bytes) -> str:
        text = raw[: 1 << 20].decode("utf-8", "replace")
        return text.replace(self._key, "[key]") if self._key else text

    def _lost(self, error: Exception, kind: str, what: str) -> Transient | Refused:
        unreachable = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        what = self._redacted(what.encode())
        if isinstance(error, aiohttp.ClientConnectorCertificateError) or (unreachable and not self._reached):
            fix = "check base_url, and that the server runs"
            return Refused(self._endpoint.place, f"cannot be reached ({what})", fix)
        return Transient("unreachable" if unreachable else kind, what)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    length = response.content_length
    if length is not None and length <= most:
        return await response.read()
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            raise Permanent("too_large", f"the answer is larger than {most >> 20} MiB")
    return b"".join(parts)


def _parsed(raw: bytes, kind: str) -> Any:
    if "json" not in kind.partition(";")[0].lower():
        raise Transient("malformed", f"the answer is {kind[:80] or 'of no type'}, not JSON")
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        return _parsed_slowly(raw)


def _parsed_slowly(raw: bytes) -> Any:
    # half an emoji (a lone surrogate) is no JSON to pydantic, and yet what some servers cut an answer to
    try:
        data = json.loads(raw, parse_constant=_refuse)
        if _depth(data) <= MAX_DEPTH:
            return data
    except (ValueError, RecursionError) as error:
        raise Transient("malformed", f"the answer is no JSON: {str(error)[:100]}") from None
    raise Transient("malformed", f"the answer is nested deeper than {MAX_DEPTH}")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _depth(data: Any) -> int:
    level, depth = [data], 0
    while level and depth <= MAX_DEPTH:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        depth += 1
    return depth
