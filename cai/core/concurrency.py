"""Wait for several calls at once, and fail by their order instead of by the clock.

Left out on purpose: cancelling the others when one fails. They are on their way, paid, and kept by the journal.
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
"""The place in the run of what a task works on. Of calls that wait for an endpoint the lowest is served first."""
SELDOM = 10_000
"""New objects from one look for garbage to the next, while a crowd works."""


async def together(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """All answers, in the order of the calls. Raises what the first failed one in that order raised.

    Which call fails first in time differs from run to run, and a failure row must not.
    """
    answers: list[Answer] = []
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers


async def crowd(worker: Callable[[], Coroutine[object, object, None]], count: int) -> None:
    """`count` workers until all are done. One error, where several workers end in one: a person reads one line."""
    try:
        with _seldom_collecting():
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the others are the same, or cancelled by it


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    # Calls leave next to no cycles behind, and looking for them again and again, also in all that was ever imported,
    # took a fifth of the time of a run against a fast endpoint.
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(SELDOM, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
