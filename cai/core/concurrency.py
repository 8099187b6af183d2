"""Wait for several calls at once; which error is raised depends on their order and not on timing.

Left out on purpose: cancelling the others when one fails. They are already sent and paid for, and the journal keeps
their answers.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Answer = TypeVar("Answer")

turn: ContextVar[int] = ContextVar("turn", default=0)
"""The position in the run of what a task works on. Among calls that wait for an endpoint the lowest is sent first."""
conversation: ContextVar[str] = ContextVar("conversation", default="")
"""The id of the prompt that a task works on. All its requests go to one replica of an endpoint."""
GC_THRESHOLD = 10_000
"""New objects between two garbage collections while workers run."""


async def together(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """All answers, in the order of the calls. Raises the error of the first failed call in that order.

    Which call fails first in time differs from run to run; a failure row must not.
    """
    answers: list[Answer] = []
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers


async def crowd(worker: Callable[[], Coroutine[object, object, None]], count: int) -> None:
    """Run `count` workers until all are done. Raises a single error where several workers fail."""
    try:
        with _rare_garbage_collection():
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the others are the same, or cancelled by it


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    # Calls create almost no reference cycles, and collecting all the time, through everything ever imported, took a
    # fifth of the time of a run against a fast endpoint.
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
