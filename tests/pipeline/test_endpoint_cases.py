"""What real endpoints answer, each shape as a whole small run: rows, failures, exit code, requests and booked tokens."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from endpoints import ASKED, serving

from cai.backends import openai
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.core.errors import CaiError, Permanent
from cai.core.types import Message, Request
from cai.pipeline.generate import generate
from cai.pipeline.manifest import too_many_failures
from cai.runs.budget import Budget
from cai.runs.folder import Run
from cai.runs.manifest import Manifest
from cai.runs.recipe import Recipe

CASES = Path(__file__).parents[3] / "shared" / "cases" / "endpoints"
SAID = "Well, this is a long first answer that goes round the houses before it says anything at all, frankly."
CALLS = 3
"""Of one prompt: draft, critique, revision."""
JsonBody = dict[str, Any]


@pytest.fixture
def cases() -> Path:
    if not CASES.is_dir():
        pytest.skip("the cases are not on this machine")
    return CASES


@dataclass
class Endpoint:
    """A server that answers some requests by a case and all others well; it adds up what it says that it used."""

    folder: Path
    case: str
    when: Callable[[JsonBody, int], bool]
    """Body and number of the request -> whether it gets the case."""
    asked: list[JsonBody] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)

    async def __call__(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        good = "a_plain" if request.path.endswith("/messages") else "plain"
        name = self.case if self.when(body, len(self.asked)) else good
        case = json.loads((self.folder / f"{name}.json").read_text())
        answer = case["body"]
        usage = (answer.get("usage") if isinstance(answer, dict) else None) or {}
        self.used["prompt"] += usage.get("prompt_tokens", usage.get("input_tokens", 0))
        self.used["completion"] += usage.get("completion_tokens", usage.get("output_tokens", 0))
        space = " \n" if name == "leading_ws" else ""
        raw = answer if isinstance(answer, str) else space + json.dumps(answer)
        return web.Response(body=raw.encode(), status=case["status"], headers=case["headers"])


@dataclass
class Outcome:
    """What a run came to."""

    rows: int
    finals: set[str]
    failures: Counter[str]
    exit: int
    error: str
    manifest: Manifest
    server: Endpoint

    @property
    def booked(self) -> tuple[int, int]:
        calls = self.manifest.calls["writer"]
        return calls.booked_prompt_tokens, calls.booked_completion_tokens

    @property
    def served(self) -> tuple[int, int]:
        return self.server.used["prompt"], self.server.used["completion"]


def outcome(
    tmp_path: Path, server: Endpoint, *, prompts: int = 6, budget: Budget | None = None, **options: Any
) -> Outcome:
    """A run of `prompts` prompts; those at the front have the word BAD in them where the case is for some only."""
    file = tmp_path / "p.jsonl"
    bad = options.pop("bad", 1)
    rows = [{"id": f"p{n}", "prompt": f"{'BAD ' if n < bad else ''}thing {n}?"} for n in range(prompts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run(tmp_path / "runs" / "a")

    async def whole() -> tuple[Manifest, CaiError | None]:
        async with serving(server) as url:
            writer = {"backend": "anthropic" if server.case.startswith("a_") else "openai", "model": "m"}
            writer |= {"base_url": url, "price": {"input": 1e6, "output": 1e6}} | options
            recipe = Recipe.model_validate({
                "constitution": "default", "prompts": str(file), "templates": "large", "critique": {"rounds": 1},
                "export": {"formats": []}, "writer": writer,
            })  # fmt: skip
            try:
                manifest = await generate(recipe, run, budget=budget)
            except CaiError as error:
                return run.manifest, error
            return manifest, too_many_failures(recipe, manifest)

    manifest, error = asyncio.run(asyncio.wait_for(whole(), 60))
    traces, lost = list(run.traces()), [one.kind for one in run.failures()]
    failures = Counter(kind for kind in lost if not kind.startswith("gate:"))
    exit = error.exit_code if error else 0
    return Outcome(len(traces), {one.draft.text for one in traces}, failures, exit, str(error), manifest, server)


def always(body: JsonBody, number: int) -> bool:
    return True


def first(body: JsonBody, number: int) -> bool:
    return number <= 2


def bad(body: JsonBody, number: int) -> bool:
    return "BAD" in json.dumps(body)


GOOD = [
    "plain", "ct_textplain", "leading_ws", "fin_STOP", "fin_dict", "fin_empty", "fin_end", "fin_tool_calls", "a_plain",
    "a_redacted", "a_tool_use", "harmony_leak", "im_end_leak", "magistral_think", "thought_tag",
]  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_a_good_answer_in_another_form_is_an_answer(cases: Path, tmp_path: Path, case: str) -> None:
    found = outcome(tmp_path, Endpoint(cases, case, always))
    assert (found.error, found.rows, found.finals, found.failures, found.exit) == ("None", 6, {SAID}, {}, 0)
    assert len(found.server.asked) == 6 * CALLS
    assert found.booked == found.served


@pytest.mark.parametrize("case", ["sse_forced", "a_nousage"])
def test_where_no_usage_is_given_an_estimate_is_booked_and_said(cases: Path, tmp_path: Path, case: str) -> None:
    found = outcome(tmp_path, Endpoint(cases, case, always))
    assert (found.rows, {text.strip() for text in found.finals}, found.exit) == (6, {SAID}, 0)
    calls = found.manifest.calls["writer"]
    assert calls.estimated == calls.requests == 6 * CALLS
    assert found.booked[1] == 6 * CALLS * -(-len(next(iter(found.finals))) // 4)


@pytest.mark.parametrize(
    "case", ["a_200_overloaded", "e200_choices_null", "fin_deepseek_busy", "fin_or_error", "gemini_rpm"]
)
def test_passing_trouble_is_tried_again(cases: Path, tmp_path: Path, case: str) -> None:
    found = outcome(tmp_path, Endpoint(cases, case, first))
    assert (found.error, found.rows, found.finals, found.failures, found.exit) == ("None", 6, {SAID}, {}, 0)
    assert len(found.server.asked) == 6 * CALLS + 2
    assert found.booked == found.served
    assert found.manifest.calls["writer"].requests == 6 * CALLS + 2


KINDS = {
    "xai_403": "content_filter", "deepseek_risk": "content_filter", "azure_filter": "content_filter",
    "a_refusal_empty": "content_filter", "ctx_anthropic": "context_too_long", "ctx_bedrock": "context_too_long",
    "ctx_gemini": "context_too_long", "ctx_llamacpp": "context_too_long", "ctx_ollama": "context_too_long",
    "ctx_sglang": "context_too_long", "ctx_vllm_new": "context_too_long", "ctx_vllm_v1_max": "context_too_long",
    "ctx_xai": "context_too_long", "ctx_zhipu": "context_too_long", "reasoning_only": "empty",
    "a_thinking_only": "empty", "a_empty_endturn": "empty", "tool_call_null": "unusable",
}  # fmt: skip
"""Case -> the failure of the one prompt that gets it."""


@pytest.mark.parametrize("case", KINDS)
def test_what_is_one_prompts_is_nobody_elses(cases: Path, tmp_path: Path, case: str) -> None:
    found = outcome(tmp_path, Endpoint(cases, case, bad))
    assert (found.rows, found.finals, found.failures) == (5, {SAID}, {KINDS[case]: 1})
    assert found.booked == found.served


WALL = "<html><head><title>Attention Required!</title></head><body>Sorry, you have been blocked. Ray 8f3a</body></html>"


@pytest.mark.parametrize("case", ["xai_403", "deepseek_risk", "azure_filter", "firewall"])
def test_forty_refused_prompts_at_the_front_stop_nothing(cases: Path, tmp_path: Path, case: str) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    for file in cases.glob("*.json"):
        (folder / file.name).write_text(file.read_text())
    page = {"status": 403, "headers": {"Content-Type": "text/html"}, "body": WALL}
    (folder / "firewall.json").write_text(json.dumps(page))
    found = outcome(tmp_path, Endpoint(folder, case, bad), prompts=46, bad=40, concurrency=1)
    assert (found.rows, found.finals, found.failures) == (6, {SAID}, {"content_filter": 40})
    again = outcome(tmp_path, Endpoint(folder, case, bad), prompts=46, bad=40)
    assert (again.rows, again.failures) == (6, {"content_filter": 40})


STOPS = {
    "a_credit": "no credit left", "openai_quota": "no credit left", "or_freeday": "free-models-per-day",
    "e200_object_error": "not available to your account", "e200_choices_empty_auth": "no(ne| key) was sent",
    "temp_gpt5": "`temperature: false`", "maxtok": "`max_tokens_field: max_completion_tokens`",
    "seed_mistral": "`seed: false`",
}  # fmt: skip
"""Case that every request gets -> what the one line says."""


@pytest.mark.parametrize("case", STOPS)
def test_what_concerns_every_prompt_stops_the_run_with_one_line(cases: Path, tmp_path: Path, case: str) -> None:
    found = outcome(tmp_path, Endpoint(cases, case, always), prompts=40, concurrency=2)
    assert (found.rows, found.exit) == (0, 2)
    assert "\n" not in found.error
    assert re.search(STOPS[case], found.error)
    assert len(found.server.asked) <= 4
    assert found.booked == (0, 0)


@pytest.mark.parametrize(
    ("case", "sent", "option"),
    [
        ("temp_gpt5", "temperature", {"temperature": False}),
        ("maxtok", "max_tokens", {"max_tokens_field": "max_completion_tokens"}),
        ("seed_mistral", "seed", {"seed": False}),
    ],
)
def test_the_option_that_the_line_names_helps(
    cases: Path, tmp_path: Path, case: str, sent: str, option: dict[str, Any]
) -> None:
    found = outcome(tmp_path, Endpoint(cases, case, lambda body, _: sent in body), **option)
    assert (found.rows, found.failures, found.exit) == (6, {}, 0)


@pytest.mark.parametrize("option", [None, "fold", "send"])
def test_a_system_message_is_folded_where_it_is_refused(cases: Path, tmp_path: Path, option: Any) -> None:
    def has_system(body: JsonBody) -> bool:
        return any(turn["role"] == "system" for turn in body["messages"])

    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "plain.json").write_text((cases / "sysrole_gemma.json").read_text())
    refusal = {"status": 400, "headers": {}, "body": {"object": "error", "message": "System role not supported"}}
    (folder / "system.json").write_text(json.dumps(refusal))
    server = Endpoint(folder, "system", lambda body, _: has_system(body))
    found = outcome(tmp_path, server, concurrency=1, system=option)
    if option == "send":
        assert (found.rows, found.exit, len(server.asked)) == (0, 2, 4)
        assert "`system: fold`" in found.error
        return
    assert (found.rows, found.failures, found.exit) == (6, {}, 0)
    refused = [body for body in server.asked if has_system(body)]
    assert len(refused) == (0 if option == "fold" else 1)
    assert "constitution" in json.dumps(server.asked[-2]) or len(server.asked[-1]["messages"]) == 1


@pytest.mark.parametrize("busy", [0, 3])
def test_folding_is_found_out_under_concurrency_and_between_refusals_for_load(
    cases: Path, tmp_path: Path, busy: int
) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "plain.json").write_text((cases / "plain.json").read_text())
    refusal = {"status": 400, "headers": {}, "body": {"object": "error", "message": "System role not supported"}}
    (folder / "system.json").write_text(json.dumps(refusal))
    (folder / "busy.json").write_text(json.dumps({"status": 503, "headers": {}, "body": {"error": "busy"}}))
    seen = 0

    class Loaded(Endpoint):
        async def __call__(self, request: web.Request) -> web.Response:
            nonlocal seen
            asks_system = "system" in [turn["role"] for turn in (await request.json())["messages"]]
            seen += asks_system
            self.case = "busy" if asks_system and seen <= busy else "system"
            return await super().__call__(request)

    server = Loaded(folder, "system", lambda body, _: body["messages"][0]["role"] == "system")
    found = outcome(tmp_path, server, prompts=40, concurrency=32)
    assert (found.error, found.rows, found.failures, found.exit) == ("None", 40, {}, 0)


async def test_folding_is_found_out_by_the_very_first_request_and_odd_turns_stop_nothing() -> None:
    async def handler(request: web.Request) -> web.Response:
        roles = [turn["role"] for turn in (await request.json())["messages"]]
        if roles != ["user"]:
            return web.json_response({"message": "Conversation roles must alternate user/assistant"}, status=400)
        return web.json_response({"choices": [{"message": {"content": SAID}, "finish_reason": "stop"}]})

    async with serving(handler) as url:
        model = openai.open(OpenAIEndpoint(model="m", base_url=url))
        assert (await model.complete(ASKED)).text == SAID
        for number in range(5):
            odd = Request((Message("user", f"{number}?"), Message("user", "And?")))
            with pytest.raises(Permanent):
                await model.complete(odd)
        await model.close()


def test_answers_that_are_all_misunderstood_stop_the_run_within_seconds(cases: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    odd = {
        "status": 200,
        "headers": {},
        "body": {"result": "Hi.", "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    }
    (folder / "odd.json").write_text(json.dumps(odd))
    for concurrency in (1, 64):
        server = Endpoint(folder, "odd", always)
        found = outcome(tmp_path, server, prompts=200, concurrency=concurrency)
        assert found.exit == 2
        assert "are not understood" in found.error
        assert len(server.asked) <= max(9, 64 + 3)
        assert found.manifest.starts[-1].calls["writer"].booked_prompt_tokens == 3 * len(server.asked)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_is_refused_only_in_the_same_words_to_different_prompts(tmp_path: Path, status: int) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    plain = {"choices": [{"message": {"content": SAID}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
    (folder / "plain.json").write_text(json.dumps({"status": 200, "headers": {}, "body": plain}))
    (folder / "no.json").write_text(json.dumps({"status": status, "headers": {}, "body": {"error": "Invalid token"}}))
    one = outcome(tmp_path, Endpoint(folder, "no", bad), prompts=40, api_key_env="CAI_TEST_KEY")
    assert (one.rows, one.failures.total()) == (39, 1)
    stopped = outcome(tmp_path, Endpoint(folder, "no", always), prompts=40, bad=0, api_key_env="CAI_TEST_KEY")
    assert stopped.exit == 2
    assert "key was refused" in stopped.error


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAI_TEST_KEY", "sk-0123456789")
