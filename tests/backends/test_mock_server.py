"""The mock server: the same question has the same answer everywhere, faults come as ordered, and all of it is counted."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cai.backends.mock.server import running
from cai.backends.mock.state import Mock, Options
from cai.core.errors import Mistake


def body(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": 512, **more}


async def post(mock: Mock, path: str = "/chat/completions", json: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of one request; the name of the exception where the connection broke."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(mock.url + path, json=body() if json is None else json, headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, ValueError) as error:
            return 0, type(error).__name__


async def get(mock: Mock, url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.json(content_type=None)


def said(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


async def test_an_answer_is_a_function_of_the_question_alone() -> None:
    answers = []
    for latency in (0.0, 0.01):
        async with running(Options(port=0, latency=latency)) as mock:
            answers += [said((await post(mock, json=body(1)))[1]) for _ in range(2)]
            assert said((await post(mock, json=body(2)))[1]) not in answers
            assert said((await post(mock, json=body(1, seed=5)))[1]) not in answers
    assert len(set(answers)) == 1


async def test_both_apis_and_both_kinds_of_completion_answer_in_their_shapes() -> None:
    async with running() as mock:
        chat = (await post(mock))[1]
        text = (await post(mock, "/completions", {"model": "m", "prompt": "Once", "max_tokens": 3, "logprobs": 0}))[1]
        message = (await post(mock, "/messages", body(system="End with VERDICT: KEEP or VERDICT: REVISE.")))[1]
        models = await get(mock, mock.url + "/models")
    assert chat["choices"][0]["finish_reason"] == "stop"
    assert chat["usage"]["completion_tokens"] > 0
    assert text["choices"][0]["finish_reason"] == "length"
    assert len(text["choices"][0]["logprobs"]["token_logprobs"]) == 3
    assert message["content"][0]["text"].split("\n")[-1] in ("VERDICT: KEEP", "VERDICT: REVISE")
    assert message["stop_reason"] == "end_turn"
    assert models["data"][0]["id"] == "mock"


async def outcomes(options: Options) -> list[Any]:
    async with running(options) as mock:
        return [await post(mock, json=body(number)) for number in range(12) for _ in range(3)]


async def test_faults_come_at_their_rate_and_the_same_in_every_run() -> None:
    faults = {"429": 0.2, "500": 0.2, "empty": 0.2}
    first = await outcomes(Options(port=0, latency=0, faults=faults))
    assert first == await outcomes(Options(port=0, latency=0, faults=faults))
    assert first != await outcomes(Options(port=0, latency=0, faults=faults, seed=1))
    statuses = [status for status, _ in first]
    assert 0.2 < sum(status != 200 for status in statuses) / len(statuses) < 0.6
    assert {429, 500, 200} == set(statuses)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("429", 429),
        ("500", 500),
        ("503", 503),
        ("529", 529),
        ("malformed", "JSONDecodeError"),
        ("type", "JSONDecodeError"),
        ("reset", "ClientOSError ClientPayloadError ServerDisconnectedError"),
        ("truncated", "ClientPayloadError"),
    ],
)
async def test_each_fault_is_what_its_name_says(fault: str, outcome: int | str) -> None:
    async with running(Options(port=0, latency=0, faults={fault: 1.0})) as mock:  # type: ignore[dict-item]
        status, what = await post(mock)
        assert mock.faults == {fault: 1}
        assert not mock.answered
    assert status == outcome or what in str(outcome).split()


async def test_empty_and_slow_answers() -> None:
    async with running(Options(port=0, latency=0, faults={"empty": 1.0})) as mock:
        assert said((await post(mock))[1]) == ""
    for fault in ("stall", "drip"):
        async with running(Options(port=0, latency=0, stall=0.3, faults={fault: 1.0})) as mock:  # type: ignore[dict-item]
            started = time.monotonic()
            assert said((await post(mock))[1])
            assert time.monotonic() - started > 0.25


async def test_a_refusal_names_a_time_if_it_is_told_to() -> None:
    for seconds in (None, 0.2):
        options = Options(port=0, latency=0, faults={"429": 1.0}, retry_after=seconds)
        async with running(options) as mock, aiohttp.ClientSession() as session:
            answer = await session.post(mock.url + "/messages", json=body())
            assert answer.headers.get("Retry-After") == (None if seconds is None else "0.2")


@pytest.mark.parametrize(("queue", "refused"), [(False, 6), (True, 0)])
async def test_a_capacity_is_kept_by_refusing_or_by_queueing(queue: bool, refused: int) -> None:
    async with running(Options(port=0, latency=0.2, capacity=4, queue=queue)) as mock:
        started = time.monotonic()
        answers = await asyncio.gather(*(post(mock, json=body(number)) for number in range(10)))
        assert [status for status, _ in answers].count(429) == refused
        assert time.monotonic() - started > (0.6 if queue else 0.2)


async def test_keys_models_and_contexts_are_checked() -> None:
    async with running(Options(port=0, latency=0, key="secret", model="m", context=20)) as mock:
        assert (await post(mock))[0] == 401
        assert (await post(mock, Authorization="Bearer secret"))[0] == 200
        assert (await post(mock, "/messages", **{"x-api-key": "secret"}))[0] == 200
        status, answer = await post(mock, json=body() | {"model": "n"}, Authorization="Bearer secret")
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        status, answer = await post(mock, json=body(10**30), Authorization="Bearer secret")
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert (await post(mock, json=[1], Authorization="Bearer secret"))[0] == 400


async def test_what_was_served_is_counted_by_digest() -> None:
    async with running(Options(port=0, latency=0)) as mock:
        for number in (1, 1, 2):
            await post(mock, json=body(number))
        stats = await get(mock, mock.url.removesuffix("/v1") + "/stats?digests=1")
    assert (stats["asked"], stats["answered"], stats["distinct"]) == (3, 3, 2)
    assert sorted(stats["digests"].values()) == [[1, 1], [2, 2]]


async def test_a_batch_of_openai() -> None:
    lines = [{"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body(number)} for number in range(40)]  # fmt: skip
    faults = {"batch_error": 0.1, "batch_expired": 0.1, "batch_twice": 0.1}
    async with running(Options(port=0, latency=0, batch_seconds=0.2, faults=faults)) as mock:  # type: ignore[arg-type]
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", "\n".join(map(json.dumps, lines)).encode(), filename="requests.jsonl")
        async with aiohttp.ClientSession() as session, session.post(mock.url + "/files", data=form) as answer:
            file = (await answer.json())["id"]
        asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = (await post(mock, "/batches", asked))[1]
        assert batch["status"] == "in_progress"
        assert batch["output_file_id"] is None
        await asyncio.sleep(0.3)
        batch = await get(mock, f"{mock.url}/batches/{batch['id']}")
        rows = {name: await content(mock, batch[f"{name}_file_id"]) for name in ("output", "error")}
        direct = said((await post(mock, json=body(7)))[1])
    assert batch["status"] == "expired"
    names = [row["custom_id"] for row in rows["output"]]
    assert names != sorted(names, key=lambda name: int(name[1:])), "in an order of their own"
    assert len(names) > len(set(names)), "some twice"
    assert {*names, *(row["custom_id"] for row in rows["error"])} == {f"c{number}" for number in range(40)}
    assert {row["error"]["code"] if row["error"] else 500 for row in rows["error"]} == {"batch_expired", 500}
    answers = {row["custom_id"]: said(row["response"]["body"]) for row in rows["output"]}
    assert answers.get("c7", direct) == direct, "the same answer as if asked by itself"


async def content(mock: Mock, file: str) -> list[Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{mock.url}/files/{file}/content") as answer:
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_a_batch_of_anthropic() -> None:
    asked = [{"custom_id": f"c{number}", "params": body(number)} for number in range(40)]
    faults = {"batch_error": 0.1, "batch_expired": 0.1}
    async with running(Options(port=0, latency=0, batch_seconds=0.2, faults=faults)) as mock:  # type: ignore[arg-type]
        batch = (await post(mock, "/messages/batches", {"requests": asked}))[1]
        assert batch["processing_status"] == "in_progress"
        await asyncio.sleep(0.3)
        batch = await get(mock, f"{mock.url}/messages/batches/{batch['id']}")
        assert batch["processing_status"] == "ended"
        async with aiohttp.ClientSession() as session, session.get(batch["results_url"]) as answer:
            rows = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert {row["custom_id"] for row in rows} == {f"c{number}" for number in range(40)}
    assert {row["result"]["type"] for row in rows} == {"succeeded", "errored", "expired"}
    counts = batch["request_counts"]
    assert counts["succeeded"] + counts["errored"] + counts["expired"] == 40


async def test_it_listens_on_loopback_and_says_so_when_its_port_is_taken() -> None:
    assert Options().host == "127.0.0.1"
    async with running(Options(port=0)) as mock:
        port = int(mock.url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(Mistake, match="--port"):
            async with running(Options(port=port)):
                pass


async def test_a_recorded_answer_is_given_to_whom_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "case.json"
    file.write_text(json.dumps({"status": 403, "headers": {"X-Case": "1"}, "body": {"error": "Content violates"}}))
    options = Options(port=0, latency=0, replay=file, replay_if="BAD", replay_first=1)
    async with running(options) as mock:
        plain = await post(mock, json=body(1))
        bad = {"model": "m", "messages": [{"role": "user", "content": "BAD thing"}]}
        first, second = await post(mock, json=bad), await post(mock, json=bad)
        assert [status for status, _ in (plain, first, second)] == [200, 403, 200]
        assert mock.replayed == 1
        usages = [
            json.loads(answer)["usage"] if isinstance(answer, str) else answer["usage"] for _, answer in (plain, second)
        ]
        assert mock.used["completion_tokens"] == sum(
            usage.get("completion_tokens", usage.get("output_tokens", 0)) for usage in usages
        )


def test_a_file_that_is_no_recorded_answer_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "case.json"
    file.write_text('{"statuss": 403}')
    with pytest.raises(Mistake, match="statuss"):
        Mock(Options(replay=file))
