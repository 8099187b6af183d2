"""An event loop whose clock jumps to the next thing to do, and a server with a capacity to throttle against."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from cai.backends.http.concurrency_limit import Ticket
from cai.backends.http.throttle import Throttle


class VirtualLoop(asyncio.SelectorEventLoop):
    """Hours pass in milliseconds; nothing but timers ever happens."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self.now


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits and nothing will happen")
        self._loop.now += timeout
        return []


def virtually(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main()` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


class Server:
    """Answers in `latency` seconds, refuses above `capacity` at once or by `luck`, and keeps what it saw."""

    def __init__(
        self, capacity: float = float("inf"), *, latency: Callable[[], float], retry_after: float = 0.0
    ) -> None:
        self.capacity, self.latency, self.retry_after = capacity, latency, retry_after
        self.luck: Callable[[], bool] = lambda: False
        self.inside = self.answered = 0
        self.arrivals: list[float] = []
        self.refusals: list[float] = []

    async def ask(self) -> bool:
        self.arrivals.append(now())
        if self.inside >= self.capacity or self.luck():
            await asyncio.sleep(0.001)
            self.refusals.append(now())
            return False
        self.inside += 1
        await asyncio.sleep(self.latency())
        self.inside -= 1
        self.answered += 1
        return True


async def call(throttle: Throttle, server: Server, backoff: Callable[[], float] = lambda: 0.1) -> int:
    """One question asked until it is answered; how often."""
    tries = 0
    while True:
        tries += 1
        ticket: Ticket = await throttle.enter()
        if await server.ask():
            throttle.leave(ticket)
            return tries
        if server.retry_after:
            throttle.hold(server.retry_after)
        throttle.refused(ticket)
        if not server.retry_after:
            await asyncio.sleep(backoff())
