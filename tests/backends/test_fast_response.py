"""Taken off the line in one piece or read by aiohttp: whatever a server sends, and however it falls into pieces, the same.

`read_timeout` makes aiohttp's parser read every answer, so a wire with it is what a wire without it is compared with.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from endpoints import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.backends.http.aiohttp_internals import fast_post_class
from cai.backends.http.connection import Connection
from cai.backends.http.fast_response import SHORT, parse_response
from cai.core.errors import CaiError

TYPE, OK = b"Content-Type: application/json\r\n", b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes, head: bytes = OK + TYPE, length: int | None = None) -> bytes:
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body) if length is None else length, body)


PADDED = b'{"a": "%b"}'
ANSWERS = {
    "plain": answer(b'{"a": 1}'),
    "odd spelling": b'HTTP/1.1 200 \r\nCONTENT-TYPE:application/json;charset=utf-8\r\ncontent-length:  8 \r\n\r\n{"a": 1}',
    "empty body": answer(b""),
    "not json": answer(b"<html>", OK + b"Content-Type: text/html\r\n"),
    "no type": answer(b'{"a": 1}', OK),
    "chunked": OK + TYPE + b"Transfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n4\r\n: 1}\r\n0\r\n\r\n",
    "to be closed": answer(b'{"a": 1}', OK + TYPE + b"Connection: close\r\n"),
    "kept": answer(b'{"a": 1}', OK + TYPE + b"Connection: keep-alive\r\n"),
    "until the end": OK + TYPE + b'\r\n{"a": 1}',
    "old": answer(b'{"a": 1}', b"HTTP/1.0 200 OK\r\n" + TYPE),
    "news first": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b'{"a": 1}'),
    "busy": answer(b"{}", b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\n" + TYPE),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "two lengths": answer(b'{"a": 1}', OK + TYPE + b"Content-Length: 3\r\n"),
    "folded": answer(b'{"a": 1}', OK + TYPE + b"X: y\r\n z\r\n"),
    "length in words": OK + TYPE + b'Content-Length: eight\r\n\r\n{"a": 1}',
    "length below zero": answer(b'{"a": 1}', length=-8),
    "too short": answer(b'{"a": 1', length=8),
    "two answers": answer(b'{"a": 1}') * 2,
    "bare line feeds": b'HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 8\n\n{"a": 1}',
    "a bare line feed at the end": OK + TYPE + b'Content-Length: 8\r\n\n{"a": 1}',
    "two of them": OK + TYPE + b'Content-Length: 8\n\n{"a": 1}',
    "chunks after a bare line feed": answer(b'{"a": 1}', OK + TYPE + b"X: 1\nTransfer-Encoding: chunked\r\n"),
    "nothing but a name": answer(b'{"a": 1}', OK + TYPE + b"X\r\n"),
    "a blank in a name": answer(b'{"a": 1}', OK + TYPE + b"X y: a\r\n"),
    "a zero": answer(b'{"a": 1}', OK + TYPE + b"X: \0\r\n"),
    "a bare return": answer(b'{"a": 1}', OK + TYPE + b"X: a\rb\r\n"),
    "many fields": answer(b'{"a": 1}', OK + TYPE + b"X: a\r\n" * 200),
    "a long field": answer(b'{"a": 1}', OK + TYPE + b"X: %b\r\n" % (b"a" * 9000)),
    "rubbish": b"\0\1\2 rubbish \r\n\r\n",
    "half a head": OK + TYPE,
    "nothing": b"",
    "just short": answer(PADDED % (b"x" * (SHORT - 100 - 60))),
    "as long as it may be": answer(PADDED % (b"x" * (SHORT - len(answer(PADDED % b"")) - 4))),
    "one more": answer(PADDED % (b"x" * (SHORT - len(answer(PADDED % b"")) - 3))),
    "long": answer(PADDED % (b"x" * 3 * SHORT)),
}  # fmt: skip


@asynccontextmanager
async def sending(pieces: Sequence[bytes]) -> AsyncIterator[str]:
    """A server that sends these pieces, one after the other, to every request, and then hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"{}")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def outcome(line: Connection) -> tuple[str, Any]:
    try:
        return "answer", await line.post("/chat/completions", b"{}")
    except CaiError as error:
        return type(error).__name__, getattr(error, "kind", "")
    finally:
        await line.close()


async def both(pieces: Sequence[bytes]) -> list[tuple[str, Any]]:
    async with sending(pieces) as url:
        return [await outcome(connection(url, timeout=5)), await outcome(connection(url, timeout=5, read_timeout=5))]


@pytest.mark.parametrize("name", ANSWERS)
async def test_in_one_piece_and_in_many_it_is_what_aiohttp_reads(name: str) -> None:
    whole = ANSWERS[name]
    half = len(whole) // 2
    head = whole.find(b"\r\n\r\n") + 4
    for pieces in (
        [whole],
        [whole[:half], whole[half:]],
        [whole[:head], whole[head:]],
        [whole[:5], whole[5:-1], whole[-1:]],
    ):
        ours, theirs = await both([piece for piece in pieces if piece])
        assert ours == theirs


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(ANSWERS)), cuts=st.lists(st.floats(0, 1), max_size=6))
def test_wherever_it_is_cut(name: str, cuts: list[float]) -> None:
    whole = ANSWERS[name]
    places = sorted({0, len(whole), *(int(cut * len(whole)) for cut in cuts)})
    pieces = [whole[start:end] for start, end in pairwise(places)]
    ours, theirs = asyncio.run(both(pieces))
    assert ours == theirs


@pytest.fixture
def ordinary_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An aiohttp without ClientRequest where the fast path looks for it."""
    monkeypatch.delattr("aiohttp.client_reqrep.ClientRequest")
    fast_post_class.cache_clear()
    assert fast_post_class() is None
    yield
    fast_post_class.cache_clear()


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_ordinary_client_reads_the_same(name: str, ordinary_client: None) -> None:
    whole = ANSWERS[name]
    pieces = [piece for piece in (whole[: len(whole) // 2], whole[len(whole) // 2 :]) if piece]
    async with sending(pieces) as url:
        ordinary = await outcome(connection(url, timeout=5))
    fast_post_class.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiohttp.client_reqrep.ClientRequest", aiohttp.client.ClientRequest, raising=False)
        fast, _ = await both(pieces)
    assert ordinary == fast


def test_the_commonest_answer_is_taken_and_the_rest_is_not() -> None:
    taken = {name for name, whole in ANSWERS.items() if _taken(whole)}
    assert taken == {
        "plain", "odd spelling", "empty body", "not json", "no type", "just short", "as long as it may be",
    }  # fmt: skip
    assert parse_response(ANSWERS["plain"]) == ("application/json", b'{"a": 1}')
    assert all(
        parse_response(ANSWERS["plain"][:cut]) is None for cut in range(len(b"HTTP/1.1 200 "), len(ANSWERS["plain"]))
    )


def _taken(whole: bytes) -> bool:
    try:
        return parse_response(whole) is not None
    except ValueError:
        return False


async def test_what_comes_unasked_spoils_the_connection() -> None:
    peers = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        while not reader.at_eof():
            try:
                await reader.readuntil(b"{}")
            except asyncio.IncompleteReadError:
                break
            writer.write(answer(b'{"a": 1}'))
            await asyncio.sleep(0.05)
            writer.write(answer(b'{"a": "of nobody"}'))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line = connection(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    for _ in range(3):
        assert await line.post("/chat/completions", b"{}") == {"a": 1}
        await asyncio.sleep(0.1)
    await line.close()
    server.close()
    assert len(peers) == 3


@pytest.mark.parametrize(
    "head", [OK + TYPE + b"Content-Length: 100\r\n\r\n{", OK + TYPE + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"]
)
@pytest.mark.parametrize("options", [{"timeout": 0.3}, {"timeout": 20, "read_timeout": 0.3}])
async def test_half_an_answer_is_not_waited_for(head: bytes, options: dict[str, float]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(head)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line = connection(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", **options)
    started = asyncio.get_running_loop().time()
    assert await outcome(line) == ("Transient", "timeout")
    assert asyncio.get_running_loop().time() - started < 5
    server.close()


async def test_a_reset_is_noticed_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(ANSWERS["plain"][:-2])
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    ours, theirs = (
        await outcome(connection(url, timeout=20)),
        await outcome(connection(url, timeout=20, read_timeout=20)),
    )
    assert ours == theirs == ("Transient", "truncated")
    server.close()
