"""The throttle, in virtual time: what it never does, what it finds, and whom it serves first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from virtual import Server, call, now, virtually

from cai.backends.http.concurrency_limit import PATIENCE, SHRINK, ConcurrencyLimit, Ticket
from cai.backends.http.throttle import Throttle
from cai.core.concurrency import turn

Latency = Callable[[], float]


def spread(seconds: float, seed: int = 0) -> Latency:
    """Latencies from half to one and a half times `seconds`, the same in every run."""
    chance = random.Random(seed)
    return lambda: seconds * chance.uniform(0.5, 1.5)


class Any(RuleBasedStateMachine):
    """Whatever comes back in whatever order: the limit stays within its bounds, and no burst lowers it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 40
        self.limit = ConcurrencyLimit(self.most)
        self.out: list[Ticket] = []
        self.clock = 0.0
        self.lowered_at = 0  # the number of the last request sent before the limit was last lowered

    @precondition(lambda self: self.limit.free)
    @rule(count=st.integers(1, 50))
    def send(self, count: int) -> None:
        while count and self.limit.free:
            self.out.append(self.limit.send())
            count -= 1

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 1000), how=st.sampled_from(["served", "refused", "lost"]), after=st.floats(0, 5))
    def back(self, which: int, how: str, after: float) -> None:
        self.clock += after
        ticket, before = self.out.pop(which % len(self.out)), self.limit.limit
        if how == "served":
            self.limit.served(ticket, self.clock)
            assert self.limit.limit >= before
        elif how == "refused":
            lowered = self.limit.refused(ticket, self.clock)
            assert not lowered or ticket.number > self.lowered_at, "only the first of a burst lowers the limit"
            assert self.limit.limit <= before
            if lowered:
                self.lowered_at = max([ticket.number, *(other.number for other in self.out)])
        else:
            self.limit.lost(ticket)
            assert self.limit.limit == before

    @invariant()
    def bounded(self) -> None:
        assert 1 <= self.limit.limit <= self.most
        assert self.limit.in_flight == len(self.out)


TestAnything = Any.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_burst_of_refusals_lowers_the_limit_once() -> None:
    limit = ConcurrencyLimit(64)
    tickets = [limit.send() for _ in range(32)]
    assert [limit.refused(ticket, 0.0) for ticket in tickets[20:]].count(True) == 1
    assert limit.limit == int(SHRINK * 21), "below the level of the first that was refused"


def test_a_refusal_beside_others_that_are_served_is_not_about_load() -> None:
    limit = ConcurrencyLimit(64)
    tickets = [limit.send() for _ in range(32)]
    assert not limit.refused(tickets.pop(4), 0.0)
    for ticket in tickets:
        limit.served(ticket, 0.1)
    assert limit.limit >= 32


@given(
    capacity=st.integers(2, 120),
    latency=st.sampled_from([0.02, 0.3, 2.0]),
    retry_after=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None)
def test_the_hidden_capacity_is_found(capacity: int, latency: float, retry_after: float, seed: int) -> None:
    async def main() -> None:
        server = Server(capacity, latency=spread(latency, seed), retry_after=retry_after)
        throttle = Throttle(256, clock=now)
        chance = random.Random(seed)
        limits = []
        async with crowd(256, throttle, server, lambda: chance.uniform(0, 0.5)):
            await asyncio.sleep(30 * latency + 10 * retry_after + 5)
            for _ in range(100):
                await asyncio.sleep(latency / 2)
                limits.append(throttle.limit)
        mean = sum(limits) / len(limits)
        assert 0.8 * capacity <= mean <= 1.2 * capacity, f"{mean} for {capacity}"

    virtually(main)


def test_little_is_refused_once_the_capacity_is_known() -> None:
    async def main() -> None:
        server, throttle = Server(40, latency=spread(0.5)), Throttle(256, clock=now)
        async with crowd(256, throttle, server):
            await asyncio.sleep(60)
            before = len(server.refusals)
            await asyncio.sleep(60)
            assert len(server.refusals) - before < 0.02 * 60 / 0.5 * 40
            assert server.answered > 0.9 * 120 / 0.5 * 40, "and nearly all of the capacity is used"

    virtually(main)


def test_it_follows_a_capacity_that_changes() -> None:
    async def main() -> None:
        server, throttle = Server(100, latency=spread(1.0)), Throttle(256, clock=now)
        async with crowd(256, throttle, server):
            await asyncio.sleep(60)
            assert 80 <= throttle.limit <= 120
            server.capacity = 20
            await asyncio.sleep(30)
            assert 16 <= throttle.limit <= 24
            server.capacity = 60
            await asyncio.sleep(3 * PATIENCE[1] + 60)
            assert 48 <= throttle.limit <= 72

    virtually(main)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_refusals_at_random_do_not_bring_it_down(share: float, seed: int) -> None:
    async def main() -> None:
        server, throttle = Server(latency=spread(0.02), retry_after=0.2), Throttle(64, clock=now)
        chance = random.Random(seed)
        server.luck = lambda: chance.random() < share
        async with crowd(64, throttle, server):
            await asyncio.sleep(40)
            before = server.answered
            await asyncio.sleep(20)
        assert server.answered - before > 0.7 * 64 * (1 - share) * 20 / 0.23, "a round of 64 for each wait of 0.2 s"

    virtually(main)


@given(waits=st.lists(st.floats(0.01, 30), min_size=1, max_size=8), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_nothing_is_sent_before_the_time_that_a_server_named(waits: list[float], seed: int) -> None:
    async def main() -> None:
        server, throttle = Server(latency=spread(0.1, seed)), Throttle(32, clock=now)
        quiet: list[tuple[float, float]] = []
        async with crowd(32, throttle, server):
            for wait in waits:
                await asyncio.sleep(random.Random(seed).uniform(0.05, 1.0))
                throttle.hold(wait)
                quiet.append((now(), now() + wait))
                await asyncio.sleep(wait + 0.01)
        for start, end in quiet:
            assert not [at for at in server.arrivals if start < at < end]
        assert server.arrivals[-1] >= quiet[-1][1], "and it goes on afterwards"

    virtually(main)


@given(rate=st.floats(30, 6000), latency=st.floats(0.01, 3))
@settings(max_examples=25, deadline=None)
def test_requests_keep_to_their_rate(rate: float, latency: float) -> None:
    async def main() -> None:
        server = Server(latency=lambda: latency)
        throttle = Throttle(4096, requests_per_minute=rate, clock=now)
        async with crowd(64, throttle, server):
            await asyncio.sleep(60)
        at_once = max(1.0, rate / 60)
        for start in range(0, 60, 7):
            window = [at for at in server.arrivals if start <= at <= start + 10]
            assert len(window) <= at_once + rate / 60 * 10 + 1
        possible = min(rate, 60 / latency * 64)
        assert len(server.arrivals) >= 0.85 * possible - 2, "and do not stay far behind it"

    virtually(main)


def test_tokens_keep_to_their_rate_and_estimates_are_corrected() -> None:
    async def main() -> None:
        throttle = Throttle(256, tokens_per_minute=6000, clock=now)
        sent = []
        for _ in range(40):
            ticket = await throttle.enter(500)
            sent.append(now())
            throttle.leave(ticket, -400)  # used 100 where 500 were feared
        assert 30 <= sent[-1] <= 45, "40 x 100 tokens at 100 a second"

    virtually(main)


def test_prompts_that_were_begun_are_finished_first() -> None:
    async def main() -> None:
        server, throttle = Server(latency=lambda: 1.0), Throttle(4, clock=now)
        finished: list[int] = []

        async def prompt(place: int) -> None:
            turn.set(place)
            for _ in range(3):
                await call(throttle, server)
            finished.append(place)

        async with asyncio.TaskGroup() as group:
            for place in range(40):
                group.create_task(prompt(place))
        assert all(abs(place - position) < 4 for position, place in enumerate(finished)), (
            "but for those that ran together"
        )

    virtually(main)


def test_a_waiter_that_gives_up_leaves_its_place_to_the_next() -> None:
    async def main() -> None:
        throttle = Throttle(1, clock=now)
        first = await throttle.enter()
        waiters = [asyncio.create_task(throttle.enter()) for _ in range(3)]
        await asyncio.sleep(1)
        waiters[0].cancel()
        throttle.leave(first)
        waiters[1].cancel()  # its turn came in this very moment
        assert (await waiters[2]).level == 1
        assert throttle.in_flight == 1

    virtually(main)


class crowd:
    """So many workers asking all the time, while the context is open."""

    def __init__(
        self, count: int, throttle: Throttle, server: Server, backoff: Callable[[], float] = lambda: 0.1
    ) -> None:
        self._count, self._throttle, self._server, self._backoff = count, throttle, server, backoff

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(self._worker()) for _ in range(self._count)]

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _worker(self) -> None:
        while True:
            await call(self._throttle, self._server, self._backoff)
