"""One timer for all requests to an endpoint. They may all take equally long, so the first begun is the first due.

`asyncio.timeout` sets and cancels a timer for each, which takes a tenth of the time of a whole request.

Left out on purpose: deadlines of different lengths.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Deadline:
    """Gives every request `seconds`. It belongs to the event loop of the first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[Any], float] = {}  # in the order of beginning, and so of falling due
        self._alarm: asyncio.TimerHandle | None = None

    async def within(self, answer: Awaitable[Answer]) -> Answer:
        """The answer. Raises TimeoutError where it did not come in time; it is cancelled then."""
        task = asyncio.current_task()
        assert task is not None  # code that awaits runs in a task
        before, loop = task.cancelling(), task.get_loop()
        self._due[task] = due = loop.time() + self._seconds
        if self._alarm is None:
            self._alarm = loop.call_at(due, self._ring)
        try:
            return await answer
        except asyncio.CancelledError:
            if task in self._due or task.uncancel() > before:
                raise  # somebody else cancelled it
            raise TimeoutError from None
        finally:
            self._due.pop(task, None)

    def _ring(self) -> None:
        self._alarm, loop = None, asyncio.get_running_loop()
        while self._due:
            task, due = next(iter(self._due.items()))
            if due > loop.time():
                self._alarm = loop.call_at(due, self._ring)
                return
            del self._due[task]
            task.cancel()
