"""One timer for all answers that an endpoint owes. They may all take equally long, so the first asked is the first due.

`asyncio.timeout` sets and cancels a timer for each, which takes a tenth of the time of a whole request.

Left out on purpose: deadlines of different lengths.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Deadline:
    """Gives every awaited future `seconds`; one that is late raises TimeoutError. It belongs to one event loop."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loop = seconds, asyncio.get_running_loop()
        self._due: dict[asyncio.Future[Any], float] = {}  # in the order of asking, and so of falling due
        self._alarm: asyncio.TimerHandle | None = None

    def watch(self, answer: asyncio.Future[Any]) -> float:
        """When `answer` is due, by the loop's clock. Say when it is `seen`, however it ended."""
        self._due[answer] = due = self._loop.time() + self._seconds
        if self._alarm is None:
            self._alarm = self._loop.call_at(due, self._ring)
        return due

    def seen(self, answer: asyncio.Future[Any]) -> None:
        """Nobody waits for it any more."""
        self._due.pop(answer, None)

    def _ring(self) -> None:
        self._alarm = None
        while self._due:
            answer, due = next(iter(self._due.items()))
            if due > self._loop.time():
                self._alarm = self._loop.call_at(due, self._ring)
                return
            del self._due[answer]
            if not answer.done():
                answer.set_exception(TimeoutError())
