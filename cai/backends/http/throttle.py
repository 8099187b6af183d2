"""Decides when a request may be sent: in order, within the concurrency limit and the rates, and after Retry-After.

Waiting calls go in the order of their prompts in the run, so that prompts in progress finish before new ones start. A
Retry-After holds back all requests to the endpoint, not only the one that got it.

Left out on purpose: one throttle for two models at the same server. Each has its own, and AIMD shares the server.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count

from cai.backends.http.concurrency_limit import ConcurrencyLimit, Ticket
from cai.core.concurrency import turn


class Bucket:
    """A token bucket: so many a minute, evenly; up to a second's worth at once. One larger amount makes it negative."""

    def __init__(self, a_minute: float, now: float) -> None:
        self._rate, self._most = a_minute / 60, max(1.0, a_minute / 60)
        self._level, self._at = self._most, now

    def wait(self, now: float) -> float:
        """Seconds until the next may be taken."""
        self._fill(now)
        return (
            0.0 if self._level > 0.999 else (1 - self._level) / self._rate
        )  # not 1: with rounding, the wait could be 0 for ever

    def take(self, amount: float, now: float) -> None:
        """Take `amount`; a negative one gives back what an estimate took too much."""
        self._fill(now)
        self._level = min(self._most, self._level - amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now


class Throttle:
    """Limits the requests to an endpoint. `enter` waits; `leave`, `refused` or `lost` reports how a request ended."""

    def __init__(
        self,
        most: int,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is the clock of the running event loop: `time.monotonic`, except in a test."""
        self._clock, self._limit = clock, ConcurrencyLimit(most)
        self._requests = Bucket(requests_per_minute, clock()) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, clock()) if tokens_per_minute else None
        self._held_until = 0.0
        self._waiting: list[tuple[int, int, float, asyncio.Future[Ticket]]] = []
        self._arrivals = count()
        self._alarm: asyncio.TimerHandle | None = None
        self._admitting = False
        self.throttled = 0

    @property
    def limit(self) -> int:
        """How many may be in flight at once."""
        return self._limit.limit

    @property
    def in_flight(self) -> int:
        """How many are in flight."""
        return self._limit.in_flight

    @property
    def held(self) -> float:
        """Seconds for which nothing is sent, because the server asked for it."""
        return max(0.0, self._held_until - self._clock()) if self._held_until else 0.0

    def at_once(self, tokens: float = 0) -> Ticket | None:
        """A ticket for a request of about `tokens`, if it need not wait."""
        return self._send(tokens) if not self._waiting and self._limit.free and not self._delay() else None

    async def enter(self, tokens: float = 0) -> Ticket:
        """Wait until a request of about `tokens` may be sent."""
        if ticket := self.at_once(tokens):
            return ticket
        future: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (turn.get(), next(self._arrivals), tokens, future))
        self._admit()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.lost(future.result())  # it was admitted and cancelled at the same moment
            raise

    def leave(self, ticket: Ticket, tokens: float = 0) -> None:
        """It was answered; `tokens` corrects the estimate by what was used, up or down."""
        self._limit.served(ticket, self._clock())
        if self._tokens and tokens:
            self._tokens.take(tokens, self._clock())
        self._admit_soon()

    def refused(self, ticket: Ticket) -> None:
        """It was refused for load."""
        self.throttled += 1
        self._limit.refused(ticket, self._clock())
        self._admit_soon()

    def lost(self, ticket: Ticket) -> None:
        """It failed in a way that says nothing about load."""
        self._limit.lost(ticket)
        self._admit_soon()

    def hold(self, seconds: float) -> None:
        """Send nothing for so many seconds, because the server asked for it."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    def _send(self, tokens: float) -> Ticket:
        if self._requests:
            self._requests.take(1, self._clock())
        if self._tokens:
            self._tokens.take(tokens, self._clock())
        return self._limit.send()

    def _delay(self) -> float:
        if not self._held_until and not self._requests and not self._tokens:
            return 0.0
        now = self._clock()
        paced = max((bucket.wait(now) for bucket in (self._requests, self._tokens) if bucket), default=0.0)
        return max(paced, self._held_until - now, 0.0)

    def _admit_soon(self) -> None:
        # not at once: the task that has just got an answer may send the next request of its prompt, which goes first
        if self._waiting and not self._admitting:
            self._admitting = True
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        self._admitting = False
        while self._waiting and self._limit.free:
            if delay := self._delay():
                return self._wake_in(delay)
            _, _, tokens, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(self._send(tokens))

    def _wake_in(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        if self._alarm is not None and self._alarm.when() <= loop.time() + delay:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_later(delay, self._woken)

    def _woken(self) -> None:
        self._alarm = None
        self._admit()
