"""Half-price batches: stage by stage, and nothing is paid twice whatever the batch or the process does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from endpoints import ASKED, serving

from cai.backends import openai
from cai.backends.http import batches
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.backends.mock.server import running
from cai.backends.mock.state import Mock, Options
from cai.core.errors import CallFailed, Mistake
from cai.pipeline.generate import generate
from cai.runs.endpoint_settings import by_batch
from cai.runs.folder import Run

ROWS = ("traces.jsonl", "pairs.jsonl", "failures.jsonl")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "QUIET", 0.1)


def writer(mock: Mock, folder: Path, backend: str) -> dict[str, Any]:
    return {
        "backend": backend,
        "model": "m",
        "base_url": mock.url,
        "batch": str(folder / "batches"),
        "batch_poll": 0.05,
    }


async def run(recipe_of: Any, mock: Mock, folder: Path, backend: str = "openai") -> dict[str, Any]:
    chosen = recipe_of(writer=writer(mock, folder, backend), templates="large", critique={"rounds": 1})
    return (await generate(chosen, Run(folder / "run"))).as_json()


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
async def test_a_run_takes_one_batch_a_stage(recipe_of: Any, tmp_path: Path, backend: str) -> None:
    async with running(Options(port=0, batch_seconds=0.2)) as mock:
        said = await run(recipe_of, mock, tmp_path, backend)
    assert said["calls"]["writer"]["asked"] == 60
    assert len(list((tmp_path / "batches").glob("*.json"))) == 3
    assert all(count == 1 for count in mock.asked.values())


async def test_batches_are_for_every_model_at_a_vendor_judgements_too(recipe_of: Any, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"  # the mock server's verdicts cannot be read, which stops a run after 16
    few.write_text("".join(json.dumps({"prompt": f"What is thing {n}?"}) + "\n" for n in range(10)))
    async with running(Options(port=0, batch_seconds=0.1)) as mock:
        place = {"backend": "openai", "model": "m", "base_url": mock.url, "batch_poll": 0.05}
        plain = recipe_of(
            writer=place,
            critic={**place, "model": "critic"},
            judge={"method": "sampled", "model": {**place, "model": "judge"}},
            templates="large",
            critique={"rounds": 1},
            prompts=str(few),
        )
        said = (await generate(by_batch(plain, tmp_path / "batches"), Run(tmp_path / "run"))).as_json()
    handed_in = [json.loads(note.read_text()) for note in (tmp_path / "batches").glob("*.json")]
    assert len(handed_in) == 4, "drafts, critiques, revisions, judgements"
    assert sum(len(note["ids"]) for note in handed_in) == sum(calls["asked"] for calls in said["calls"].values())


def test_batches_without_a_vendor_are_refused(recipe_of: Any, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no model of this recipe is at an endpoint"):
        by_batch(recipe_of(), tmp_path)


async def test_batch_answers_are_those_of_the_plain_calls(recipe_of: Any, tmp_path: Path) -> None:
    async with running(Options(port=0, batch_seconds=0.1)) as mock:
        await run(recipe_of, mock, tmp_path / "batch")
        plain = recipe_of(
            writer={"backend": "openai", "model": "m", "base_url": mock.url}, templates="large", critique={"rounds": 1}
        )
        await generate(plain, Run(tmp_path / "plain" / "run"))
    for name in ROWS:
        assert (tmp_path / "batch" / "run" / name).read_bytes() == (tmp_path / "plain" / "run" / name).read_bytes()


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
async def test_failed_expired_and_doubled_results_are_survived(recipe_of: Any, tmp_path: Path, backend: str) -> None:
    faults = {"batch_error": 0.15, "batch_expired": 0.15, "batch_twice": 0.2}
    async with running(Options(port=0, batch_seconds=0.1, faults=faults)) as mock:
        said = await run(recipe_of, mock, tmp_path, backend)
    lost = sum(said["failures"].get(kind, 0) for kind in said["failures"] if not kind.startswith("gate:"))
    assert said["counts"]["revise"]["out"] + lost == 20
    assert set(said["failures"]) <= {"batch"} | {kind for kind in said["failures"] if kind.startswith("gate:")}


async def test_stopped_while_polling_it_finds_its_batch_again(recipe_of: Any, tmp_path: Path) -> None:
    async with running(Options(port=0, batch_seconds=1.0)) as mock:
        task = asyncio.create_task(run(recipe_of, mock, tmp_path))
        while not list((tmp_path / "batches").glob("*.json")):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        handed_in = sum(mock.asked.values())
        said = await run(recipe_of, mock, tmp_path)
    assert handed_in == 20
    assert said["counts"]["revise"]["out"] == 20
    assert all(count == 1 for count in mock.asked.values())


async def test_the_note_of_a_batch_holds_no_key_and_no_text(
    recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "sk-canary-0123456789abcdef")
    async with running(Options(port=0, batch_seconds=0.1, key="sk-canary-0123456789abcdef")) as mock:
        recipe = recipe_of(
            writer=writer(mock, tmp_path, "openai") | {"api_key_env": "CANARY"},
            templates="large",
            critique={"rounds": 1},
        )
        await generate(recipe, Run(tmp_path / "run"))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-canary" not in written
    for note in (tmp_path / "batches").glob("*.json"):
        assert set(json.loads(note.read_text())) == {"endpoint", "batch", "ids"}


async def test_a_forgotten_batch_is_handed_in_anew(recipe_of: Any, tmp_path: Path) -> None:
    async with running(Options(port=0, batch_seconds=0.1)) as mock:
        await run(recipe_of, mock, tmp_path)
        for journal in tmp_path.glob("journal*"):
            journal.unlink()
        for note in (tmp_path / "batches").glob("*.json"):
            said = json.loads(note.read_text())
            note.write_text(json.dumps(said | {"batch": "batch_of_last_year"}))
        again = await run(recipe_of, mock, tmp_path)
    assert again["counts"]["revise"]["out"] == 20


async def test_a_damaged_note_of_a_batch_is_one_clear_sentence(tmp_path: Path) -> None:
    for number, content in enumerate(["{", "[]", '{"endpoint": "http://x/v1"}', "7"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.json").write_text(content)
        with pytest.raises(Mistake, match=r"a\.json: is not the note of a batch.*; delete it"):
            openai.open(OpenAIEndpoint(model="m", base_url="http://x/v1", batch=str(folder)))


class FaultyApi:
    """OpenAI's batches, answered by what a test says."""

    def __init__(self, **answers: str) -> None:
        self.answers = {"file": '{"id": "f"}', "batch": '{"id": "b"}', "status": DONE, "results": ""} | answers
        self.batches = 0

    async def __call__(self, request: web.Request) -> web.Response:
        name = "file" if request.method == "POST" else "status"
        if request.path.endswith("/content"):
            name = "results"
        elif request.path.endswith("/batches"):
            name, self.batches = "batch", self.batches + 1
        if name == "file":
            raw = await request.read()
            self.id = raw.partition(b'"custom_id":"')[2].partition(b'"')[0].decode()
        text = self.answers[name].replace("ID", getattr(self, "id", ""))
        return web.Response(text=text, content_type="application/json")


DONE = '{"status": "completed", "output_file_id": "o"}'


@pytest.mark.parametrize(
    ("answers", "kind", "batches"),
    [
        ({"results": '{"custom_id": "ID", "resp'}, "batch", 3),
        ({"results": "[1]\n7\nnull\n{}"}, "batch", 3),
        ({"results": '{"custom_id": ["ID"], "response": {"body": {}}}'}, "batch", 3),
        ({"results": '{"custom_id": "ID", "response": {"body": {}}}'}, "malformed", 1),
        ({"results": '{"custom_id": "ID", "response": {"body": 7}}'}, "malformed", 1),
        ({"batch": "{}"}, "malformed", 1),
        ({"batch": "[]"}, "malformed", 1),
        ({"file": '{"id"'}, "malformed", 0),
        ({"file": "7"}, "malformed", 0),
        ({"status": '{"status"'}, "malformed", 1),
        ({"status": "[]"}, "malformed", 1),
    ],
)
async def test_a_torn_answer_of_a_vendor_is_a_failure_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], kind: str, batches: int
) -> None:
    monkeypatch.setattr("cai.backends.http.retry.TRIES", 2)
    api = FaultyApi(**answers)
    async with serving(api) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url, batch=str(tmp_path), batch_poll=0.01))
        with pytest.raises(CallFailed) as caught:
            await asyncio.wait_for(model.complete(ASKED), 20)
        await model.close()
        await model.close()
    assert caught.value.kind == kind
    assert api.batches == batches
