"""One timer for all requests in flight. All have the same time limit, so the first one sent is the first one due.

`asyncio.timeout` sets and cancels a timer for each request, which takes a tenth of the time of a whole request.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Deadline:
    """Gives every awaited future `seconds`; a late one raises TimeoutError. It belongs to one event loop."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loop = seconds, asyncio.get_running_loop()
        self._due: dict[asyncio.Future[Any], float] = {}  # in the order of sending, and so of falling due
        self._alarm: asyncio.TimerHandle | None = None

    def watch(self, answer: asyncio.Future[Answer]) -> float:
        """Watch `answer` and return when it is due, by the loop's clock. Call `done` however it ends."""
        self._due[answer] = due = self._loop.time() + self._seconds
        if self._alarm is None:
            self._alarm = self._loop.call_at(due, self._expire)
        return due

    def done(self, answer: asyncio.Future[Answer]) -> None:
        """Stop watching it."""
        self._due.pop(answer, None)

    def _expire(self) -> None:
        self._alarm = None
        while self._due:
            answer, due = next(iter(self._due.items()))
            if due > self._loop.time():
                self._alarm = self._loop.call_at(due, self._expire)
                return
            del self._due[answer]
            if not answer.done():
                answer.set_exception(TimeoutError())
