"""Money: whatever a server answers, its own bill stays below the limit, and what is booked is what it says."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cai.backends.http.client import EndpointClient
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.backends.http.errors import status_error
from cai.backends.http.openai_chat import OpenAIChat
from cai.backends.http.usage import SLACK, reported_usage
from cai.core.concurrency import together
from cai.core.errors import BudgetReached, CallFailed, Mistake, Transient
from cai.core.types import Message, Request, Sampling, Usage
from cai.runs.budget import Budget, CallTally, Price
from cai.runs.journal import Journal
from cai.runs.journaled import through_journal

HERE = OpenAIEndpoint(model="m", base_url="http://x/v1", concurrency=8)
HOSTILE: list[Any] = [-1_000_000, 10**4000, "many", None, float("nan"), [], True, 1e300, 0]
MOST = 40
"""max_tokens of every request."""


@dataclass
class Server:
    """Answers in the ways that it is told, one after the other, and keeps its own bill."""

    ways: list[str]
    bill: int = 0
    requests: int = 0
    has_key: bool = False
    said: list[Usage] = field(default_factory=list)

    async def post(self, path: str, body: bytes) -> Any:
        way = self.ways[self.requests % len(self.ways)]
        if way == "busy" and self.requests > 200:  # a server that is always busy is asked for ten minutes
            way = "refused"
        self.requests += 1
        await asyncio.sleep(0)
        if way == "refused":
            raise status_error(HERE, "x", 400, {}, '{"error": {"message": "content filter"}}')
        if way == "busy":
            raise Transient("overloaded", "503")
        text = "word " * (self.requests % 30)
        usage = Usage(len(body) // 4, len(text) // 4)
        self.bill += usage.prompt_tokens + usage.completion_tokens
        if way in ("cut", "malformed", "timeout"):
            raise Transient({"cut": "truncated"}.get(way, way), way)
        numbers: Any = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        if way.startswith("hostile"):
            numbers["completion_tokens" if way[-1] in "02468" else "prompt_tokens"] = HOSTILE[int(way[7:])]
        else:
            self.said.append(usage)
        choice = {"message": {"content": "" if way == "empty" else text}, "finish_reason": "stop"}
        return {"choices": [choice], "usage": None if way == "unsaid" else numbers}


WAYS = ["good", "refused", "busy", "cut", "malformed", "timeout", "empty", "unsaid"]
WAYS += [f"hostile{number}" for number in range(len(HOSTILE))]


async def asked(server: Server, budget: Budget, calls: int) -> CallTally:
    """Ask `calls` questions until the budget is reached."""

    async def soon(seconds: float) -> None:
        await asyncio.sleep(0)

    client = EndpointClient(HERE, OpenAIChat(HERE), {"endpoint": "x"}, [server])  # type: ignore[list-item]
    client._retry._sleep = soon
    tally = CallTally()
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "j.sqlite") as journal:
        model = through_journal(journal, client, tally, budget, Price(input=1e6, output=1e6))

        async def one(number: int) -> None:
            messages = (Message("user", f"{number} " + "x" * (number * 37 % 500)),)
            try:
                await model.complete(Request(messages, Sampling(1.0, 1.0, MOST), number))
            except (CallFailed, BudgetReached, Mistake):
                return

        await together(map(one, range(calls)))
    return tally


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    ways=st.lists(st.sampled_from(WAYS), min_size=1, max_size=12),
    limit=st.integers(0, 6000),
    kind=st.sampled_from(["max_tokens", "max_cost", "max_calls"]),
)
def test_the_servers_own_bill_never_passes_the_limit(ways: list[str], limit: int, kind: str) -> None:
    server, budget = Server(ways), Budget(**{kind: limit % 60 if kind == "max_calls" else limit})
    tally = asyncio.run(asked(server, budget, 40))
    if kind == "max_calls":
        assert server.requests <= limit % 60
    else:
        assert server.bill <= limit
    assert tally.requests == server.requests
    assert tally.booked_prompt_tokens >= sum(one.prompt_tokens for one in server.said)
    if set(ways) <= {"good", "refused", "busy", "empty"}:
        said = sum(one.prompt_tokens + one.completion_tokens for one in server.said)
        assert tally.booked_prompt_tokens + tally.booked_completion_tokens == said == server.bill
        assert tally.new_cost == pytest.approx(said)
    assert (tally.useful_cost or 0) <= (tally.new_cost or 0) + 1e-6


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_a_count_that_cannot_be_is_not_believed(value: Any, name: str) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5} | {name: value}
    believed = reported_usage({"usage": usage}, 400, MOST)
    may_be = name == "completion_tokens" and value in (0, None) and value is not True and value is not False
    assert believed == (Usage(10, 0) if may_be else None)


def test_counts_are_bounded_by_what_was_sent() -> None:
    assert reported_usage({"usage": {"prompt_tokens": 400 + SLACK, "completion_tokens": 1}}, 400, MOST)
    assert not reported_usage({"usage": {"prompt_tokens": 401 + SLACK, "completion_tokens": 1}}, 400, MOST)
    assert not reported_usage({"usage": {"prompt_tokens": 4, "completion_tokens": 1 + MOST + SLACK}}, 400, MOST)


async def test_log_probabilities_and_scores_cost_what_the_server_says() -> None:
    class Echo(Server):
        async def post(self, path: str, body: bytes) -> Any:
            self.requests += 1
            tokens = ["<turn>", "Why?", "<turn>", " (A)" if b"(A)" in body else " (B)"]
            read = [None, *({"1": {"logprob": -0.5, "decoded_token": token}} for token in tokens[1:])]
            usage = {"prompt_tokens": 50 + self.requests, "completion_tokens": 1}
            self.bill += 51 + self.requests
            return {"choices": [{"message": {"content": "x"}}], "prompt_logprobs": read, "usage": usage}

    server, tally = Echo([]), CallTally()
    client = EndpointClient(HERE, OpenAIChat(HERE), {"endpoint": "x"}, [server])  # type: ignore[list-item]
    request = Request((Message("user", "Why?"),))
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "j.sqlite") as journal:
        model = through_journal(journal, client, tally)
        await model.score(request, [" (A)", " (B)"])
        assert (tally.asked, tally.requests) == (1, 2)
        assert tally.booked_prompt_tokens + tally.booked_completion_tokens == server.bill == 51 + 1 + 51 + 2
        assert tally.prompt_tokens + tally.completion_tokens == server.bill, "all of it was useful"
        again = CallTally()
        await through_journal(journal, client, again).score(request, [" (A)", " (B)"])
        assert (again.found, again.found_prompt_tokens + again.found_completion_tokens) == (1, server.bill)
