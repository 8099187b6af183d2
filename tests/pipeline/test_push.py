"""Pushing to a hub: a small one on loopback that takes what the real one's client sends."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from cai.cli.main import app
from cai.core.errors import Mistake
from cai.pipeline.generate import generate
from cai.pipeline.push import pack, push_export
from cai.runs.folder import Run

TOKEN = "hf_canaryCanaryCanaryCanaryCanary00"


class Hub:
    """Repositories with files, and who asked."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.refuse = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuse or request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "Invalid username or password."}, status=401)
        parts = request.path.strip("/").split("/")
        if request.path == "/api/repos/create":
            self.created.append(await request.json())
            name = f"{self.created[-1].get('organization') or 'me'}/{self.created[-1]['name']}"
            self.files.setdefault(name, {})
            return web.json_response({"url": f"{request.url.origin()}/datasets/{name}"})
        name = "/".join(parts[2:4])
        if "preupload" in parts:
            asked = (await request.json())["files"]
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for file in asked
            ]
            return web.json_response({"files": files})
        if "commit" in parts:
            for line in (await request.read()).splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.files[name][row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                if row["key"] == "deletedFile":
                    del self.files[name][row["value"]["path"]]
            url = f"{request.url.origin()}/datasets/{name}/commit/{'a' * 40}"
            return web.json_response({"success": True, "commitUrl": url, "commitOid": "a" * 40})
        if "tree" in parts:
            tree = [
                {"type": "file", "path": path, "size": len(raw), "oid": "b" * 40}
                for path, raw in self.files[name].items()
            ]
            return web.json_response(tree)
        siblings = [{"rfilename": path} for path in self.files.get(name, {})]
        return web.json_response({"id": name, "sha": "c" * 40, "siblings": siblings, "private": True, "tags": []})


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    hub = Hub()
    runner = web.ServerRunner(web.Server(hub.handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    import huggingface_hub.constants as constants
    import huggingface_hub.hf_api as hf_api

    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # other tests of this process set it
    monkeypatch.setattr(hf_api.constants, "ENDPOINT", url)
    yield hub
    await runner.cleanup()


@pytest.fixture
async def done(recipe_of: Any, tmp_path: Path) -> Run:
    where = Run(tmp_path / "runs" / "r")
    await generate(recipe_of(export={"formats": ["trl", "jsonl"]}), where)
    return where


async def send(run: Run, format: str = "trl") -> str:
    import asyncio

    return await asyncio.to_thread(push_export, pack(run, format, "team/set"), private=True, message="first")


async def test_an_export_arrives_whole_with_its_card(hub: Hub, done: Run) -> None:
    address = await send(done)
    assert address.endswith("a" * 40)
    folder = done.path / "export" / "trl"
    assert hub.files["team/set"] == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "private" in json.dumps(hub.created[0]), "a new repository is for nobody else to see"


async def test_files_of_an_earlier_push_do_not_stay_beside_the_new(hub: Hub, done: Run) -> None:
    await send(done)
    await send(done, "jsonl")
    assert set(hub.files["team/set"]) == {path.name for path in (done.path / "export" / "jsonl").iterdir()}


async def test_a_refusal_is_one_line_without_the_token(hub: Hub, done: Run) -> None:
    hub.refuse = True
    with pytest.raises(Mistake, match="was not pushed") as caught:
        await send(done)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not hub.files


async def test_without_yes_nothing_is_sent(hub: Hub, done: Run) -> None:
    said = CliRunner().invoke(app, ["push", str(done.path), "team/set", "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.output)["pushed"] is False
    assert not hub.created


@pytest.mark.parametrize(
    ("format", "repo", "words"), [("orpo", "a/b", "no such export"), ("trl", "../x", "no name of")]
)
async def test_what_cannot_be_pushed_is_said(done: Run, format: str, repo: str, words: str) -> None:
    with pytest.raises(Mistake, match=words):
        pack(done, format, repo)
