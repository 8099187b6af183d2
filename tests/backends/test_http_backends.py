"""The openai and anthropic backends: what is sent, what an answer means, who is asked again, and what is kept secret."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from endpoints import ASKED, always, chat_answer, serving

from cai.backends import anthropic, openai
from cai.backends.http import prompt_logprobs as _prompt_logprobs
from cai.backends.http.anthropic_messages import AnthropicMessages
from cai.backends.http.endpoint import AnthropicEndpoint, OpenAIEndpoint
from cai.backends.http.errors import Suspect, body_error, has_error
from cai.backends.http.openai_chat import OpenAIChat
from cai.backends.http.retry import EMPTY_TRIES, TRIES, Retry
from cai.backends.http.usage import reported_usage
from cai.backends.mock.server import running
from cai.backends.mock.state import Options as MockOptions
from cai.core.config import Document, parse_options
from cai.core.errors import CallFailed, Mistake, Permanent, Refused, Transient
from cai.core.types import Completion, Message, Request, Sampling, Score, Usage
from cai.pipeline.generate import generate
from cai.runs.budget import CallTally
from cai.runs.folder import Run
from cai.runs.journal import Journal
from cai.runs.journaled import through_journal
from cai.runs.models import open_model
from cai.runs.recipe import ModelChoice, Recipe

CANARY = "sk-canary-0123456789abcdef"
USED = Usage(11, 3)
HERE = OpenAIEndpoint(model="m", base_url="http://x/v1")
PLAIN = Request((Message("user", "Question: why?\nAnswer:"),), Sampling(0.7, 0.9, 64, ("\n",)), seed=7, plain=True)


def chat(**options: Any) -> OpenAIChat:
    return OpenAIChat(OpenAIEndpoint(model="m", base_url="http://x/v1", **options))


def messages(**options: Any) -> AnthropicMessages:
    return AnthropicMessages(AnthropicEndpoint(model="c", base_url="http://x/v1", **options))


def test_a_chat_carries_everything_that_can_change_its_answer() -> None:
    path, body = chat().put(replace(ASKED, sampling=Sampling(1.0, 1.0, 64, ("END",))))
    assert path == "/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 64,
        "seed": 7,
        "stop": ("END",),
    }


def test_plain_text_goes_to_text_completions() -> None:
    path, body = chat(logprobs=True).put(PLAIN)
    assert path == "/completions"
    assert body["prompt"] == "Question: why?\nAnswer:"
    assert body["logprobs"] == 0
    assert "messages" not in body


def test_options_change_the_body() -> None:
    extra = {"top_k": 5, "top_p": None, "chat_template_kwargs": {"enable_thinking": False}}
    _, body = chat(seed=False, logprobs=True, max_tokens_field="max_completion_tokens", extra_body=extra).put(ASKED)
    assert body["max_completion_tokens"] == 64
    assert body["logprobs"] is True
    assert body["top_k"] == 5
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert not {"max_tokens", "seed", "top_p"} & set(body)


@pytest.mark.parametrize("field", ["model", "messages", "prompt", "stream", "n"])
def test_fields_that_are_ours_cannot_be_replaced(field: str) -> None:
    with pytest.raises(Mistake, match=f"may not set {field}"):
        options({"extra_body": {field: 1}})


def options(given: dict[str, Any]) -> OpenAIEndpoint:
    """As a recipe's options are read."""
    return parse_options(Document("recipe: writer", {"model": "m", **given}, None), OpenAIEndpoint)


@pytest.mark.parametrize(
    ("message", "text", "thinking"),
    [
        ({"content": "Hi."}, "Hi.", None),
        ({"content": "Hi.", "reasoning_content": "Say hi."}, "Hi.", "Say hi."),
        ({"content": "Hi.", "reasoning": "Say hi."}, "Hi.", "Say hi."),
        ({"content": "<think>Say hi.</think>\n\nHi."}, "Hi.", "Say hi."),
        ({"content": None, "reasoning_content": "Never came to an end"}, "", "Never came to an end"),
        ({"content": None, "refusal": "I cannot."}, "I cannot.", None),
        ({"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i."}]}, "Hi.", None),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "Hi."}]},
            "Hi.",
            "Hm",
        ),
        ({"content": "1 < 2", "reasoning_content": None}, "1 < 2", None),
    ],
)  # fmt: skip
def test_reasoning_is_split_off_however_it_comes(message: dict[str, Any], text: str, thinking: str | None) -> None:
    read = chat().read(chat_answer(**message), USED)
    assert read == Completion(text, thinking, "stop", Usage(11, 3))


def test_finish_reasons() -> None:
    def ended(reason: str | None, content: str = "Hi.") -> Completion:
        answer = chat_answer(content=content)
        answer["choices"][0]["finish_reason"] = reason
        return chat().read(answer, USED)

    assert ended("length").finish == "length"
    assert ended("stop").finish == ended(None).finish == ended("eos").finish == "stop"
    assert ended("length", content="") == Completion("", finish="length", usage=Usage(11, 3)), "that explains itself"
    with pytest.raises(Permanent) as filtered:
        ended("content_filter")
    assert filtered.value.kind == "content_filter"
    with pytest.raises(Permanent, match="tool_calls"):
        ended("tool_calls", content="")
    with pytest.raises(Transient, match="empty"):
        ended("stop", content=" \n")


def test_log_probabilities_are_kept_where_they_are_asked_for() -> None:
    answer = chat_answer(content="Hi.")
    answer["choices"][0]["logprobs"] = {"content": [{"token": "Hi", "logprob": -0.5}, {"token": ".", "logprob": -1}]}
    assert chat(logprobs=True).read(answer, USED).logprobs == (-0.5, -1.0)
    assert chat().read(answer, USED).logprobs is None
    assert chat(logprobs=True).read(chat_answer(content="Hi."), USED).logprobs is None, "where the endpoint gives none"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"error": {"message": "upstream is busy", "code": 429}}, "rate_limited"),
        ({"error": {"message": "maximum context length is 8", "code": 400}}, "context_too_long"),
        ({"choices": [], "error": {"message": "rate-limited upstream", "code": 429}}, "rate_limited"),
        ({"choices": None, "error": {"message": "Provider returned error", "code": 502}}, "server_error"),
        ({"object": "error", "message": "the model `m` is not available to you", "code": 40301}, "not_found"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded"),
        ({"base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}}, "content_filter"),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "content_filter"),
        ({"detail": "try later"}, "server_error"),
        ({"choices": [{"error": {"code": 502, "message": "idle"}, "message": {"content": ""}}]}, "server_error"),
    ],
    ids=repr,
)
def test_an_error_within_a_good_status_is_an_error(answer: Any, kind: str) -> None:
    with pytest.raises(CallFailed) as error:
        raise body_error(HERE, answer) if has_error(answer) else chat().read(answer, USED)
    assert error.value.kind == kind


@pytest.mark.parametrize("reason", ["STOP", "end", "", "COMPLETE", "eos", {"type": "stop", "matched": 7}, "tool_calls"])
def test_a_text_that_ended_by_itself_is_whole_in_every_spelling(reason: Any) -> None:
    answer = chat_answer(content="Hi.")
    answer["choices"][0]["finish_reason"] = reason
    assert chat().read(answer, USED).finish == "stop"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("sensitive", "content_filter"), ("SAFETY", "content_filter"), ("PROHIBITED_CONTENT", "content_filter"),
        ("insufficient_system_resource", "overloaded"), ("error", "server_error"), ("abort", "server_error"),
    ],
)  # fmt: skip
def test_a_text_that_was_broken_off_is_no_answer(reason: str, kind: str) -> None:
    answer = chat_answer(content="Hi, I")
    answer["choices"][0]["finish_reason"] = reason
    with pytest.raises(CallFailed, match=reason.lower()) as error:
        chat().read(answer, USED)
    assert error.value.kind == kind


def test_an_unknown_finish_reason_is_kept_as_unknown() -> None:
    answer = chat_answer(content="Hi.")
    answer["choices"][0]["finish_reason"] = "because"
    assert chat().read(answer, USED).finish == "unknown"


BROKEN: list[Any] = [
    [], {}, None, "text", 7,
    {"choices": []}, {"choices": [{}]}, {"choices": [{"message": "text"}]}, {"choices": {"0": 1}},
    {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": [{"kind": "text"}]}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": "x", "reasoning": 3}, "finish_reason": "stop"}]},
]  # fmt: skip


@pytest.mark.parametrize("answer", BROKEN, ids=repr)
async def test_an_answer_of_another_shape_is_malformed(answer: Any) -> None:
    async with serving(always(json.dumps(answer))) as url:
        model: Any = openai.open(OpenAIEndpoint(model="m", base_url=url))
        path, body = model._api.put(ASKED)
        with pytest.raises(Transient) as error:
            await model._once(path, json.dumps(body).encode(), body, model._api.read)
        await model.close()
    assert error.value.kind == "malformed"


def test_a_message_to_claude() -> None:
    turns = (*ASKED.messages, Message("assistant", "Yes?"), Message("user", "More."))
    path, body = messages(extra_body={"metadata": {"user_id": "u"}}).put(replace(ASKED, messages=turns))
    assert path == "/messages"
    assert body == {
        "model": "c",
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 0.9,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Hello?"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "More."},
        ],
        "metadata": {"user_id": "u"},
    }
    with pytest.raises(Mistake, match="templates: large"):
        messages().put(PLAIN)
    with pytest.raises(Mistake, match="above 1"):
        messages().put(replace(ASKED, sampling=Sampling(1.5)))


def test_an_answer_of_claude() -> None:
    blocks = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hi."}]
    usage = {"input_tokens": 5, "cache_read_input_tokens": 20, "cache_creation_input_tokens": None, "output_tokens": 3}
    answer = {"content": blocks, "stop_reason": "end_turn", "usage": usage}
    assert messages().read(answer, USED) == Completion("Hi.", "Hm.", "stop", USED)
    assert reported_usage(answer, 100, 64) == Usage(25, 3)
    assert messages().read(answer | {"stop_reason": "max_tokens"}, USED).finish == "length"
    with pytest.raises(Permanent) as error:
        messages().read(answer | {"stop_reason": "refusal"}, USED)
    assert error.value.kind == "content_filter"


def test_identity_has_what_changes_answers_and_nothing_else() -> None:
    def identity(**given: Any) -> Any:
        return openai.open(OpenAIEndpoint(model="m", base_url="http://x/v1/", **given)).identity

    plain = {"engine": "openai", "model": "m", "endpoint": "http://x/v1"}
    assert identity() == plain
    assert identity(timeout=5, concurrency=3, requests_per_minute=9, tokens_per_minute=9, read_timeout=1) == plain
    assert identity(extra_body={"top_k": 3}) != plain
    assert identity(seed=False) != plain
    assert identity(logprobs=True) != plain
    azure = OpenAIEndpoint(model="m", base_url="https://a.example/v1?api-version=2025-01-01")
    assert openai.open(azure).identity["endpoint"] == "https://a.example/v1"


@pytest.mark.parametrize("value", [CANARY, "hf_abcDEF123456789012345678", "0123456789abcdef0123456789abcdef", ""])
def test_a_key_in_place_of_its_variable_is_refused_without_repeating_it(value: str) -> None:
    with pytest.raises(Mistake) as error:
        options({"api_key_env": value})
    assert not value or value not in str(error.value)
    assert "api_key_env" in str(error.value)


@pytest.mark.parametrize("url", [f"http://user:{CANARY}@x/v1", f"http://{CANARY}@x/v1", f"http://x/v1?key={CANARY}"])
def test_a_key_in_the_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(Mistake) as error:
        options({"base_url": url})
    assert CANARY not in str(error.value)
    assert "api_key_env" in str(error.value)


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:8000/v1", "http:///v1", "file:///etc/passwd", "http://x/#a"])
def test_only_web_addresses_are_taken(url: str) -> None:
    with pytest.raises(Mistake, match="base_url"):
        options({"base_url": url})


def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    given = OpenAIEndpoint(model="m", base_url="http://x/v1", api_key_env="SOME_KEY")
    with pytest.raises(Mistake, match="SOME_KEY is not set"):
        openai.open(given)
    monkeypatch.setenv("SOME_KEY", "line\r\nbreak")
    with pytest.raises(Mistake, match="no key has") as error:
        openai.open(given)
    assert "break" not in str(error.value)


def test_the_vendors_own_variable_is_read_for_the_vendor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert OpenAIEndpoint(model="m").key("api.openai.com", "OPENAI_API_KEY") == CANARY
    elsewhere = OpenAIEndpoint(model="m", base_url="https://api.openai.com.evil.example/v1")
    assert elsewhere.key("api.openai.com", "OPENAI_API_KEY") == ""


async def test_a_call_is_asked_again_until_it_has_had_enough() -> None:
    waits: list[float] = []

    async def no_wait(seconds: float) -> None:
        waits.append(seconds)

    async def ask() -> str:
        raise Transient("server_error", "500")

    with pytest.raises(Transient) as error:
        await Retry(sleep=no_wait)(ask)
    assert error.value.attempts == TRIES
    assert len(waits) == TRIES - 1
    assert all(0 <= wait <= 30 for wait in waits)
    assert len(set(waits)) > 5, "jittered: calls that failed together do not come back together"


async def test_an_empty_answer_is_believed_sooner() -> None:
    async def ask() -> str:
        raise Transient("empty", "nothing")

    with pytest.raises(Transient) as error:
        await Retry(sleep=soon)(ask)
    assert error.value.attempts == EMPTY_TRIES


async def soon(seconds: float) -> None:
    await asyncio.sleep(0)


async def test_being_told_to_wait_costs_patience_and_no_tries() -> None:
    now, asked = 0.0, 0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += max(seconds, 1.0)

    async def ask() -> str:
        nonlocal asked
        asked += 1
        raise Transient("rate_limited", "429", retry_after=1.0)

    with pytest.raises(Transient) as error:
        await Retry(sleep=sleep, clock=lambda: now)(ask)
    assert asked > 5 * TRIES
    assert 600 <= now <= 620
    assert error.value.attempts == asked


async def test_a_permanent_failure_is_not_asked_again() -> None:
    tries = 0

    async def ask() -> str:
        nonlocal tries
        tries += 1
        raise Transient("server_error", "500") if tries < 3 else Permanent("context_too_long", "400")

    with pytest.raises(Permanent) as error:
        await Retry(sleep=soon)(ask)
    assert (tries, error.value.attempts) == (3, 3)


async def test_retry_after_holds_back_the_endpoint_and_not_just_the_call() -> None:
    arrivals: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        arrivals.append(time.monotonic())
        if len(arrivals) == 1:
            return web.Response(status=429, headers={"Retry-After": "0.5"})
        return web.json_response(chat_answer(content="Hi."))

    async with serving(handler) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url))
        first = asyncio.create_task(model.complete(ASKED))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, *(model.complete(replace(ASKED, seed=seed)) for seed in range(10)))
        await model.close()
    assert len(arrivals) == 12
    assert arrivals[1] - arrivals[0] >= 0.5
    found = model.status()
    assert (found["in_flight"], found["throttled"], found["retried: rate_limited"]) == (0, 1, 1)


async def test_a_stalled_call_holds_nobody_back_beyond_its_time_out() -> None:
    async def handler(request: web.Request) -> web.Response:
        stalls = b"stall" in await request.read()
        await asyncio.sleep(30 if stalls else 0)
        return web.json_response(chat_answer(content="Hi."))

    async with serving(handler) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url, concurrency=1, timeout=0.3))
        stalled = asyncio.create_task(model.complete(Request((Message("user", "stall"),))))
        await asyncio.sleep(0.05)
        assert (await asyncio.wait_for(model.complete(ASKED), 15)).text == "Hi."
        stalled.cancel()
        await model.close()


async def test_a_cancelled_call_leaves_its_place() -> None:
    async with running(MockOptions(port=0, latency=5)) as mock:
        model = openai.open(OpenAIEndpoint(model="m", base_url=mock.url))
        asking = [asyncio.create_task(model.complete(replace(ASKED, seed=seed))) for seed in range(5)]
        await asyncio.sleep(0.2)
        assert model.status()["in_flight"] == 5
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert model.status()["in_flight"] == 0
        await model.close()


async def test_an_endpoint_that_refuses_whatever_it_is_asked_stops_the_run() -> None:
    async with serving(always('{"error": {"message": "temperature must be 1"}}', status=400)) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url))
        errors = [await failing(model, Request((Message("user", f"{n}?"),))) for n in range(20)]
        await model.close()
    assert [type(error) for error in errors] == 19 * [Suspect] + [Refused]
    assert "temperature must be 1" in str(errors[-1])


async def failing(model: Any, request: Request) -> CallFailed | Mistake:
    try:
        await model.complete(request)
    except (CallFailed, Mistake) as error:
        return error
    raise AssertionError("it was answered")


async def test_scores_are_read_off_the_prompt() -> None:
    from cai.backends.mock.answers import token_logprob

    continuations = (" (A)", " (B) of two words")
    async with running(MockOptions(port=0, latency=0)) as mock:
        model = openai.open(OpenAIEndpoint(model="m", base_url=mock.url))
        plain = await model.score(PLAIN, continuations)
        chats = await model.score(ASKED, continuations)
        await model.close()

    expected = [sum(map(token_logprob, [" (A)"])), sum(map(token_logprob, [" (B)", " of", " two", " words"]))]
    for scores in (plain, chats):
        assert [score.logprob for score in scores] == pytest.approx(expected)
        assert [score.tokens for score in scores] == [1, 4]


@pytest.mark.parametrize(("request_", "lacks"), [(PLAIN, "echo"), (ASKED, "prompt_logprobs")])
async def test_an_endpoint_that_gives_no_scores_is_told_so(request_: Request, lacks: str) -> None:
    answer = chat_answer(content="x") | {"choices": [{"text": "x", "message": {"content": "x"}, "logprobs": None}]}
    async with serving(always(json.dumps(answer))) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url))
        with pytest.raises(Mistake, match=lacks):
            await model.score(request_, [" (A)"])
        await model.close()


@pytest.mark.parametrize("bad", [float("-inf"), float("inf"), float("nan"), 1e3, "high", [1], -(10**400)])
def test_a_log_probability_that_is_none_is_a_malformed_answer(bad: Any) -> None:
    with pytest.raises(Transient, match="has an unexpected shape"):
        booked({}, lambda *_: _prompt_logprobs._tail(["Why?", " (A)"], [None, bad], " (A)"))
    answer = chat_answer(content="Hi.")
    answer["choices"][0]["logprobs"] = {"content": [{"token": "Hi.", "logprob": bad}]}
    with pytest.raises(Transient, match="has an unexpected shape"):
        booked(answer, chat(logprobs=True).read)


def booked(answer: Any, read: Any) -> Any:
    """What a client reads in an answer."""
    model: Any = openai.open(OpenAIEndpoint(model="m", base_url="http://x/v1"))
    return model._booked(answer, model.claim({}), read)


async def test_a_score_that_is_no_number_is_never_kept(tmp_path: Path) -> None:
    class Broken:
        identity, concurrency = {"engine": "broken"}, 1

        async def score(self, request: Request, continuations: Any) -> tuple[Score, ...]:
            return (Score(float("-inf"), 1),)

    with Journal(tmp_path / "journal.sqlite") as journal:
        for _ in range(2):
            with pytest.raises(Permanent, match="infinite or no number"):
                await through_journal(journal, Broken(), CallTally()).score(PLAIN, [" (A)"])


async def test_a_continuation_within_a_token_has_no_score() -> None:
    logprobs = {"tokens": ["Why", "? (A", ")", "."], "token_logprobs": [None, -1, -1, -1]}
    answer = {"choices": [{"text": "", "logprobs": logprobs}], "usage": {"prompt_tokens": 3}}
    async with serving(always(json.dumps(answer))) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url))
        with pytest.raises(Permanent, match="no token begins"):
            await model.score(PLAIN, [" (A)"])
        await model.close()


async def test_claude_gives_no_scores() -> None:
    with pytest.raises(Mistake, match="log-probabilities"):
        await anthropic.open(AnthropicEndpoint(model="c", base_url="http://x/v1")).score(ASKED, ["x"])


def recipe(url: str, prompts: Path, backend: str = "openai", **writer: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "constitution": "default",
            "prompts": str(prompts),
            "templates": "large",
            "writer": {"backend": backend, "model": "m", "base_url": url, **writer},
            "critique": {"rounds": 1},
            "export": {"formats": ["jsonl"]},
        }
    )


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
async def test_a_whole_run_leaves_no_trace_of_its_key(
    backend: str, tmp_path: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    async with running(MockOptions(port=0, latency=0, key=CANARY, context=3000, faults={"500": 0.1})) as mock:
        where = Run(tmp_path / "runs" / "r")
        said = (await generate(recipe(mock.url, prompts_file, backend, api_key_env="CANARY_KEY"), where)).as_json()
        assert mock.answered
    assert said["counts"]["draft"]["out"] == 20
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 6
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("server", "words"), [({"key": "another"}, "key was refused"), ({"model": "another"}, "no such model")]
)
async def test_a_refused_key_or_model_stops_the_run_at_once(
    server: dict[str, Any], words: str, tmp_path: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    async with running(MockOptions(port=0, latency=0.01, **server)) as mock:
        with pytest.raises(Refused, match=words) as error:
            await generate(recipe(mock.url, prompts_file, api_key_env="CANARY_KEY"), Run(tmp_path / "runs" / "r"))
        assert not mock.answered
    assert CANARY not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["api_key", "apiKey", "Authorization", "access_token", "password"])
def test_a_key_in_the_body_is_refused_by_name_and_not_repeated(name: str) -> None:
    with pytest.raises(Mistake, match=f"extra_body.{name}.*api_key_env") as error:
        options({"extra_body": {name: CANARY}})
    assert CANARY not in str(error.value)


async def test_a_key_is_not_sent_and_the_error_says_so() -> None:
    async with serving(always('{"error": {"message": "No credentials"}}', status=401)) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url))
        error = await failing(model, ASKED)
        await model.close()
    assert isinstance(error, Refused)
    assert "none was sent" in str(error)
    assert "api_key_env" in str(error)


@pytest.mark.parametrize("backend", ["vllm", "Ollama", "llama.cpp"])
def test_a_server_that_speaks_openais_api_is_no_backend(backend: str) -> None:
    with pytest.raises(Mistake, match="backend: openai"):
        open_model(ModelChoice(backend=backend), "writer")


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("key", ["sk-canary-0123456789abcdef", "k7-short"])
async def test_a_key_is_redacted_after_decoding(monkeypatch: pytest.MonkeyPatch, key: str, escaped: bool) -> None:
    said = "".join(f"\\u{ord(letter):04x}" for letter in key) if escaped else key
    monkeypatch.setenv("CAI_TEST_KEY", key)
    good = '{"choices": [{"message": {"content": "It is KEY."}, "finish_reason": "stop"}]}'
    for status, text in ((200, good), (400, '{"error": {"message": "bad key KEY"}}')):
        answer = text.replace("KEY", said)
        async with serving(always(answer, status=status)) as url:
            model = openai.open(OpenAIEndpoint(model="m", base_url=url, api_key_env="CAI_TEST_KEY"))
            if status == 200:
                assert (await model.complete(ASKED)).text == "It is [key]."
            else:
                assert key not in str(await failing(model, ASKED))
            await model.close()
