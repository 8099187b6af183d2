"""Several replicas of one endpoint: a conversation stays with one of them, and a dead one costs nothing but time."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from endpoints import chat_answer, serving

from cai.backends.http import replicas as _replicas
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.core.config import Document, parse_options
from cai.core.errors import Mistake, Refused
from cai.core.seeds import digest
from cai.pipeline.generate import generate
from cai.runs.folder import Run
from cai.runs.recipe import Recipe

CALLS = 5
"""Of one prompt: a draft, and two rounds of critique and revision."""


def recipe(tmp_path: Path, urls: list[str], prompts: int = 30, **options: Any) -> Recipe:
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What is thing-{n}-?"}) + "\n" for n in range(prompts)))
    writer = {"backend": "openai", "model": "m", "base_url": urls, "concurrency": 8} | options
    return Recipe.model_validate({
        "constitution": "default", "prompts": str(file), "templates": "large", "critique": {"rounds": 2},
        "export": {"formats": []}, "writer": writer,
    })  # fmt: skip


class Server:
    """Answers by what it is asked, and notes which prompt each request is about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: Counter[str] = Counter()

    async def __call__(self, request: web.Request) -> web.Response:
        raw = (await request.read()).decode()
        self.asked.append(re.findall(r"thing-\d+-", raw)[-1])
        self.bodies[raw] += 1
        await asyncio.sleep(0.005)
        return web.json_response(chat_answer(content=f"Well: {digest(raw)[:12]}. VERDICT: REVISE"))


async def test_a_conversation_stays_with_one_replica(tmp_path: Path) -> None:
    one, other = Server(), Server()
    async with serving(one) as first, serving(other) as second:
        await generate(recipe(tmp_path, [first, second]), Run(tmp_path / "runs" / "a"))
    where = defaultdict(set)
    for name, server in (("one", one), ("other", other)):
        for prompt in server.asked:
            where[prompt].add(name)
    assert len(where) == 30
    assert all(len(names) == 1 for names in where.values())
    assert min(len(one.asked), len(other.asked)) > 5 * CALLS, "both are used"


async def test_one_killed_in_the_middle_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Server(), Server()
    async with serving(one) as first, AsyncExitStack() as stack:
        second = await stack.enter_async_context(serving(other))
        working = asyncio.create_task(generate(recipe(tmp_path, [first, second], 60), Run(tmp_path / "runs" / "a")))
        while len(other.asked) < 40:
            await asyncio.sleep(0.005)
        await stack.aclose()
        manifest = await asyncio.wait_for(working, 60)
    traces = list(Run(tmp_path / "runs" / "a").traces())
    assert len(traces) == len({trace.prompt.id for trace in traces}) == 60
    assert not [kind for kind in manifest.failures if not kind.startswith("gate:")]
    calls = manifest.calls["writer"]
    assert calls.asked == 60 * CALLS
    twice = [body for body, count in (one.bodies + other.bodies).items() if count > 1]
    assert len(twice) <= 8, "only what was in flight at the dead one was sent again"


async def test_a_dead_replica_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replicas, "AGAIN", 0.05)
    one, other = Server(), Server()
    async with serving(one) as first, AsyncExitStack() as stack:
        second = await stack.enter_async_context(serving(other))
        port = int(second.split(":")[2].partition("/")[0])
        await stack.aclose()
        working = asyncio.create_task(generate(recipe(tmp_path, [first, second], 60), Run(tmp_path / "runs" / "a")))
        while len(one.asked) < 60:
            await asyncio.sleep(0.005)
        runner = web.ServerRunner(web.Server(other), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.wait_for(working, 60)
        await runner.cleanup()
    assert other.asked
    assert len(list(Run(tmp_path / "runs" / "a").traces())) == 60


async def test_where_no_replica_is_there_the_run_stops(tmp_path: Path) -> None:
    urls = ["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"]
    with pytest.raises(Refused, match="no replica can be reached"):
        await asyncio.wait_for(generate(recipe(tmp_path, urls), Run(tmp_path / "runs" / "a")), 30)


def test_a_replica_more_moves_only_its_share() -> None:
    def routes(count: int) -> list[str]:
        listed: Any = [_replicas.Replica(f"http://{n}/v1", None, None) for n in range(count)]  # type: ignore[arg-type]
        return [_replicas.Replicas(listed).choose(f"p{n}").place for n in range(1000)]

    before, after = routes(3), routes(4)
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"http://3/v1"}
    assert 180 < len(moved) < 320


def test_lists_of_addresses_are_checked() -> None:
    def read(urls: Any) -> OpenAIEndpoint:
        return parse_options(Document("recipe: writer", {"model": "m", "base_url": urls}, None), OpenAIEndpoint)

    assert read(["http://a/v1/", "http://b/v1"]).urls == ("http://a/v1", "http://b/v1")
    assert read(["http://a/v1"]).base_url == "http://a/v1"
    for wrong in ([], ["http://a", "http://a"], ["http://a", "b"], ["http://a", "http://key@b"]):
        with pytest.raises(Mistake, match="base_url"):
            read(wrong)
