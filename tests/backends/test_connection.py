"""The wire: every way an endpoint can fail is a typed error, nothing hostile gets through, and no key gets out."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import re
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection as PooledConnection
from endpoints import always, connection, serving

from cai.backends.http.aiohttp_internals import fast_post_class
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.backends.http.errors import Suspect, status_error
from cai.backends.http.wait_hint import retry_after
from cai.core.errors import CaiError, CallFailed, Permanent, Refused, Transient

HERE = OpenAIEndpoint(model="m", base_url="http://x/v1")
CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture(params=["fast", "ordinary"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test runs twice: on the fast path, and with an aiohttp whose internals have other names."""
    if request.param == "ordinary":
        monkeypatch.delattr("aiohttp.client_reqrep.ClientRequest")
    fast_post_class.cache_clear()
    yield
    fast_post_class.cache_clear()


async def answer_of(url: str, **options: object) -> object:
    """What a post to `url` gives: the JSON, or the error."""
    line = connection(url, **options)  # type: ignore[arg-type]
    try:
        return await line.post("/chat/completions", b"{}")
    except CaiError as error:
        return error
    finally:
        await line.close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (408, "", "timeout"),
        (409, "", "conflict"),
        (425, "", "too_early"),
        (429, '{"error": {"message": "Rate limit reached. Add a payment method: https://x/account/billing"}}', "rate_limited"),
        (500, "<html><h1>Internal</h1></html>", "server_error"),
        (502, "", "server_error"),
        (503, "", "overloaded"),
        (529, '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}', "overloaded"),
        (400, '{"error": {"message": "bad", "code": "context_length_exceeded"}}', "context_too_long"),
        (400, '{"object": "error", "message": "This model\'s maximum context length is 8 tokens"}', "context_too_long"),
        (400, '{"error": {"message": "the request exceeds the available context size"}}', "context_too_long"),
        (400, '{"type": "error", "error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}', "context_too_long"),
        (422, '{"error": "`inputs` tokens + `max_new_tokens` must be <= 4096"}', "context_too_long"),
        (413, "", "context_too_long"),
        (400, '{"error": {"code": "content_filter", "message": "The response was filtered"}}', "content_filter"),
        (403, '{"error": {"message": "Your input was flagged", "code": 403}}', "content_filter"),
        (400, '{"detail": [{"msg": "Input should be a valid integer", "input": "the model does not exist"}]}', "bad_request"),
        (400, "", "bad_request"),
        (418, "", "bad_request"),
    ],
)  # fmt: skip
def test_what_a_status_means_for_one_call(status: int, body: str, kind: str) -> None:
    error = status_error(HERE, "http://x", status, {}, body)
    assert isinstance(error, CallFailed)
    assert error.kind == kind
    permanent = kind in ("context_too_long", "content_filter", "bad_request")
    assert isinstance(error, Permanent if permanent else Transient)
    assert str(status) in error.message
    assert "<h1>" not in error.message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, '{"error": {"message": "Incorrect API key provided"}}'),
        (403, ""),
        (402, ""),
        (429, '{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'),
        (400, '{"error": {"message": "Your credit balance is too low to access the API"}}'),
        (404, '{"error": {"message": "The model `gpt-7` does not exist", "code": "model_not_found"}}'),
        (404, '{"detail": "Not Found"}'),
        (405, ""),
        (400, '{"error": {"message": "Invalid model name passed in"}}'),
        (400, '{"error": {"message": "Unsupported parameter: \'max_tokens\' is not supported with this model"}}'),
        (400, '{"type": "error", "error": {"message": "seed: Extra inputs are not permitted"}}'),
        (307, ""),
    ],
)
def test_what_is_hopeless_for_every_call_can_stop_the_run(status: int, body: str) -> None:
    error = status_error(HERE, "http://x/v1", status, {"Location": "http://elsewhere"}, body)
    assert isinstance(error, Refused | Suspect)
    assert "\n" not in str(error)


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after({"Retry-After": "7"}) == 7
    assert retry_after({"Retry-After": "0.2"}) == 0.2
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({}) is None
    assert retry_after({"Retry-After": "soon"}) is None
    then = datetime.now(UTC) + timedelta(seconds=30)
    assert 28 <= (retry_after({"Retry-After": format_datetime(then, usegmt=True)}) or 0) <= 30
    past = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)
    assert retry_after({"Retry-After": past}) == 0
    # a server whose clock is wrong is read by its own clock
    later = format_datetime(datetime(2020, 1, 1, 0, 1, tzinfo=UTC), usegmt=True)
    assert retry_after({"Retry-After": later, "Date": past}) == 60


@pytest.mark.parametrize(
    "given",
    [
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 99999999999999999999999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 +999999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Fri, 31 Dec 2027 23:59:59 GMT",
        "31536000",
        "1e999",
        "inf",
        "nan",
        "-1",
        ",",
        "\u0663",
        "9" * 500,
    ],
)
@pytest.mark.parametrize("status", [200, 429, 503])
def test_no_retry_after_is_an_error_of_its_own(given: str, status: int) -> None:
    for headers in ({"Retry-After": given}, {"Retry-After": given, "Date": given}, {"retry-after-ms": given}):
        error = status_error(HERE, "http://x", status, headers, "")
        assert isinstance(error, Refused | CallFailed)
        assert "\n" not in str(error)


def test_an_endpoint_that_wants_hours_stops_the_run() -> None:
    error = status_error(HERE, "http://x", 429, {"Retry-After": "7200"}, "")
    assert isinstance(error, Refused)
    assert re.search(r"a limit holds until 20\d\d-\d\d-\d\d \d\d:\d\d UTC .*--wait", str(error))
    patient = status_error(HERE.model_copy(update={"wait": True}), "http://x", 429, {"Retry-After": "7200"}, "")
    assert isinstance(patient, Transient)
    assert patient.retry_after == 7200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1, 2",
        b'{"a": NaN}',
        b"\xff\xfe",
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 250 + rb'"\ud83d"' + b"}" * 250,
    ],
    ids=["nothing", "cut", "cut list", "NaN", "no UTF-8", "very deep", "too deep"],
)
@pytest.mark.usefixtures("client")
async def test_what_is_no_json_is_malformed(body: bytes) -> None:
    async with serving(always(body)) as url:
        error = await answer_of(url)
    assert isinstance(error, Transient)
    assert error.kind == "malformed"


@pytest.mark.usefixtures("client")
async def test_half_an_emoji_is_let_through() -> None:
    async with serving(always(r'{"a": "\ud83d"}')) as url:
        assert await answer_of(url) == {"a": "\ud83d"}


@pytest.mark.parametrize("kind", ["text/html", "text/event-stream", "application/octet-stream", "text/plain"])
@pytest.mark.parametrize("body", ["{}", " \r\n{}", "\ufeff{}"])
@pytest.mark.usefixtures("client")
async def test_json_is_json_under_any_content_type(kind: str, body: str) -> None:
    for status in (200, 201):
        async with serving(always(body, kind=kind, status=status)) as url:
            assert await answer_of(url) == {}


@pytest.mark.usefixtures("client")
async def test_compression_is_not_asked_for_and_undone_up_to_a_size() -> None:
    seen, bodies = [], [gzip.compress(b'{"a": 1}'), gzip.compress(b" " * (40 << 20) + b"{}"), gzip.compress(b"{}")[:9]]

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Accept-Encoding"])
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return web.Response(body=bodies[len(seen) - 1], headers=headers)

    async with serving(handler) as url:
        answers = [await answer_of(url) for _ in bodies]
    assert seen == 3 * ["identity"]
    assert answers[0] == {"a": 1}
    assert [getattr(error, "kind", "") for error in answers[1:]] == ["malformed", "malformed"]


CHAT_EVENTS = (
    'data: {"choices": [{"delta": {"role": "assistant", "reasoning_content": "Hm."}, "finish_reason": null}]}\n\n'
    'data: {"choices": [{"delta": {"content": "Hi"}}]}\r\n\r\n: a comment\n\n'
    'data: {"choices": [{"delta": {"content": "."}, "finish_reason": "stop"}]}\n\n'
    'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
)
MESSAGE_EVENTS = (
    'event: message_start\ndata: {"type": "message_start", "message": {"usage": {"input_tokens": 5}}}\n\n'
    'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}\n\n'
    'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "."}}\n\n'
    'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "end_turn"},'
    ' "usage": {"output_tokens": 2}}\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\n'
)


async def test_a_stream_that_nobody_asked_for_is_put_together() -> None:
    async with serving(always(CHAT_EVENTS, kind="text/event-stream")) as url:
        answer: Any = await answer_of(url)
    message = {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm."}
    assert answer["choices"] == [{"message": message, "finish_reason": "stop"}]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 2}
    async with serving(always(MESSAGE_EVENTS, kind="text/event-stream")) as url:
        answer = await answer_of(url)
    assert answer["content"] == [{"type": "text", "text": "Hi."}]
    assert (answer["stop_reason"], answer["usage"]) == ("end_turn", {"input_tokens": 5, "output_tokens": 2})
    for cut in (CHAT_EVENTS[:150], MESSAGE_EVENTS[:250], "data: {"):
        async with serving(always(cut, kind="text/event-stream")) as url:
            assert isinstance(await answer_of(url), Transient)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.usefixtures("client")
async def test_an_answer_without_end_is_left_unread(announced: bool) -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        headers = {"Content-Type": "application/json"} | ({"Content-Length": str(1 << 34)} if announced else {})
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * (1 << 20))
                sent += 1
        except ConnectionResetError:
            return response

    async with serving(handler) as url:
        error = await answer_of(url)
        await asyncio.sleep(0.1)
    assert isinstance(error, Permanent)
    assert error.kind == "too_large"
    assert sent < 60


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.usefixtures("client")
async def test_redirects_are_not_followed(status: int) -> None:
    reached = []

    async def elsewhere(request: web.Request) -> web.Response:
        reached.append(request.headers.get("Authorization"))
        return web.json_response({})

    async with serving(elsewhere) as other, serving(always(status=status, Location=other)) as url:
        assert isinstance(await answer_of(url, key=CANARY), Suspect)
    assert not reached


@pytest.mark.usefixtures("client")
async def test_a_cut_answer_and_a_reset_are_worth_another_try() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"a": ')
        assert request.transport is not None
        request.transport.abort()
        return response

    async def nothing(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    for broken, kinds in ((handler, {"truncated", "connection"}), (nothing, {"connection"})):
        async with serving(broken) as url:
            error = await answer_of(url)
        assert isinstance(error, Transient)
        assert error.kind in kinds


@pytest.mark.usefixtures("client")
async def test_what_is_no_http_is_malformed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        error = await answer_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    assert isinstance(error, Transient)
    assert error.kind == "malformed"


@pytest.mark.usefixtures("client")
async def test_news_before_the_answer_is_passed_over() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b'7\r\n{"a": 1\r\n1\r\n}\r\n0\r\n\r\n')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        assert await answer_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") == {"a": 1}


@pytest.mark.usefixtures("client")
async def test_a_silent_and_a_dripping_server_are_left_after_the_time_out() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response

    for handler in (silent, dripping):
        async with serving(handler) as url:
            error = await asyncio.wait_for(answer_of(url, timeout=0.3), 15)
        assert isinstance(error, Transient)
        assert error.kind == "timeout"


@pytest.mark.usefixtures("client")
async def test_silence_between_bytes_can_be_limited_apart() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.sleep(5)
        return response

    async with serving(handler) as url:
        error = await answer_of(url, timeout=10, read_timeout=0.2)
    assert isinstance(error, Transient)
    assert error.kind == "timeout"


async def test_connections_are_kept() -> None:
    ports = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        await request.read()
        return web.json_response({})

    async with serving(handler) as url:
        line = connection(url)
        for _ in range(20):
            await line.post("/chat/completions", b"{}")
        await line.close()
    assert len(ports) == 1


@pytest.mark.usefixtures("client")
async def test_an_endpoint_that_was_never_there_stops_the_run_and_one_that_went_away_does_not() -> None:
    async with serving(always()) as url:
        line = connection(url)
        await line.post("/chat/completions", b"{}")
    with pytest.raises(Transient, match="unreachable|connection"):
        await line.post("/chat/completions", b"{}")
    await line.close()
    error = await answer_of(url)
    assert isinstance(error, Refused)
    assert "cannot be reached" in str(error)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
@pytest.mark.usefixtures("client")
async def test_a_key_that_the_server_repeats_is_seen_nowhere(status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        said = {"error": {"message": f"I got {request.headers['Authorization']}"}, "choices": [{"text": CANARY}]}
        return web.json_response(said, status=status)

    async with serving(handler) as url:
        line = connection(url, key=CANARY)
        try:
            said = json.dumps(await line.post("/chat/completions", b"{}"))
        except CaiError as error:
            said = "".join(traceback.format_exception(error)) + repr(error)
        await line.close()
    assert CANARY not in said
    assert "[key]" in said
    assert CANARY not in repr(line)


@pytest.mark.usefixtures("client")
async def test_a_word_that_is_no_secret_stays_in_answers() -> None:
    async with serving(always('{"text": "EMPTY as my hand"}')) as url:
        assert await answer_of(url, key="EMPTY") == {"text": "EMPTY as my hand"}


async def test_one_connection_answers_again_and_again_whatever_the_form_of_its_answers() -> None:
    plain = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n%d"
    chunked = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n%d\r\n0\r\n\r\n"
    )
    busy = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    async with raw(plain % 1, chunked % 2, busy, b"HTTP/1.1 100 Continue\r\n\r\n" + plain % 4, chunked % 5) as (
        url,
        came,
    ):
        line = connection(url)
        for number in (1, 2, 3, 4, 5):
            if number == 3:
                with pytest.raises(Transient):
                    await line.post("/x", b"{}")
            else:
                assert await line.post("/x", b"{}") == number
        await line.close()
    assert came == [5]


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7", b"noise", b"\0" * 9])
@pytest.mark.usefixtures("client")
async def test_a_connection_that_says_more_than_it_was_asked_is_not_asked_again(more: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1"
    for pause in (0.0, 0.05):  # it comes with the answer, or later
        async with raw(answer + more if not pause else answer, after=more if pause else b"") as (url, came):
            line = connection(url)
            try:
                assert await line.post("/x", b"{}") == 1
            except Transient:
                assert not pause  # one packet with an answer and noise is no HTTP
            await asyncio.sleep(0.1)
            assert await asyncio.gather(line.post("/x", b"{}"), return_exceptions=True)
            await line.close()
        assert came == [1, 1]


@asynccontextmanager
async def raw(*answers: bytes, after: bytes = b"") -> AsyncIterator[tuple[str, list[int]]]:
    """A server that sends these bytes, one answer a request, and says how many requests each connection brought."""
    came: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(0)
        place = len(came) - 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"{}")
                writer.write(answers[came[place] % len(answers)])
                came[place] += 1
                if after:
                    await asyncio.sleep(0.02)
                    writer.write(after)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", came
    finally:
        server.close()


@pytest.mark.usefixtures("client")
async def test_closing_twice_or_unused_leaves_nothing_open(recwarn: pytest.WarningsRecorder) -> None:
    async with serving(always()) as url:
        used, unused = connection(url), connection(url)
        await used.post("/x", b"{}")
        for each in (used, used, unused, unused):
            await each.close()
        assert used._session is not None and used._session.closed
    gc.collect()
    assert not [str(warning.message) for warning in recwarn if "Unclosed" in str(warning.message)]


async def test_a_connection_that_cannot_be_prepared_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no")

    async with serving(always()) as url:
        line = connection(url)
        await line.post("/x", b"{}")
        line._posters["/x"].close()
        closed: list[bool] = []
        close = PooledConnection.close
        monkeypatch.setattr(ResponseHandler, "set_response_params", refuse)
        monkeypatch.setattr(PooledConnection, "close", lambda self: (closed.append(True), close(self)))
        with pytest.raises(Transient):
            await line.post("/x", b"{}")
        await line.close()
    assert closed == [True]
