"""What of aiohttp's internals the fast path uses: complete, there in the installed version, and not needed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest
from aiohttp.connector import BaseConnector
from endpoints import always, connection, serving

import cai.backends.http
from cai.backends.http.aiohttp_internals import USED, fast_post_class, missing_internals
from cai.core.errors import Transient

HTTP = Path(cai.backends.http.__file__).parent
OWNERS = {"protocol": "ResponseHandler", "_handler": "ResponseHandler", "connection": "Connection"}
OWNERS |= {"payload": "StreamReader", "message": "RawResponseMessage", "_connector": "BaseConnector"}
OWNERS |= {"_target": "ClientRequest"}


@pytest.fixture(autouse=True)
def looked_up_anew() -> Iterator[None]:
    fast_post_class.cache_clear()
    yield
    fast_post_class.cache_clear()


def test_the_installed_aiohttp_has_every_internal_that_is_used() -> None:
    assert missing_internals() == [], f"aiohttp {aiohttp.__version__} has changed: adapt fast_post.py, and USED"


def test_every_attribute_that_the_fast_path_touches_is_in_the_list() -> None:
    listed = {name.partition(":")[2] for name in USED} | {"ClientRequest.headers"}
    for file in ("fast_post.py", "fast_response.py"):
        for node in ast.walk(ast.parse((HTTP / file).read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
                assert owner not in OWNERS or f"{OWNERS[owner]}.{node.attr}" in listed, f"{file}:{node.lineno}"


async def connect_otherwise(self: BaseConnector, *given: Any, **more: Any) -> Any:
    return await CONNECT(self, *given, **more)


CONNECT = BaseConnector.connect


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.delattr("aiohttp.client_reqrep.ClientRequest"),
        lambda patch: patch.delattr("aiohttp.client_proto.ResponseHandler"),
        lambda patch: patch.setattr(BaseConnector, "connect", connect_otherwise),
        lambda patch: patch.setattr("aiohttp.streams.StreamReader", type("StreamReader", (), {})),
    ],
    ids=["no request class", "no handler", "other arguments", "no body length"],
)
async def test_with_another_aiohttp_requests_go_through_the_session(
    change: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change(monkeypatch)
    async with serving(always('{"a": 1}')) as url, serving(always("busy", status=503)) as busy:
        for address in (url, busy):
            line = connection(address)
            if address == busy:
                with pytest.raises(Transient, match="overloaded"):
                    await line.post("/x", b"{}")
            else:
                assert await line.post("/x", b"{}") == {"a": 1}
            await line.close()
    assert fast_post_class() is None
    assert caplog.text.count("aiohttp has changed") == 1, "looked up once for all connections"


async def test_both_ways_send_the_same_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    async def handler(request: Any) -> Any:
        seen.append({**request.headers, "method": request.method, "body": (await request.read()).decode()})
        return aiohttp.web.json_response({})

    async with serving(handler) as url:
        for lacking in (False, True):
            if lacking:
                monkeypatch.delattr("aiohttp.client_reqrep.ClientRequest")
                fast_post_class.cache_clear()
            line = connection(url, key="k" * 20)
            await line.post("/x", b'{"a": 1}')
            await line.close()
    assert seen[1].pop("Connection", "close") == "close"
    assert seen[0] == seen[1]
