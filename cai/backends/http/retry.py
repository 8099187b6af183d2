"""Retries: the one place where a failed call is tried again, and where it is decided when to stop.

An endpoint that is overloaded or unreachable uses up a call's time, not its tries. Any other passing error uses a try.
tenacity is imported and used only after a first failure, because it takes longer than a whole call that succeeds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from cai.backends.http.errors import BUSY
from cai.core.errors import CallFailed, Transient

if TYPE_CHECKING:
    from tenacity import RetryCallState

Answer = TypeVar("Answer")

PATIENCE = 600.0
"""Seconds from a call's first failure to its last try."""
TRIES = 16
"""Failed tries of one call, not counting FREE ones: enough for a server that fails three times in ten."""
EMPTY_TRIES = 5
"""Fewer, because an empty answer may be all that the model says."""
FREE = (*BUSY, "unreachable")
"""Kinds that are limited by PATIENCE alone."""


class Retry:
    """Calls until there is an answer. `retried` counts the tries after the first."""

    def __init__(
        self,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self.retried = 0

    async def __call__(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `ask` returns in the end. Raises its last CallFailed, with the number of `attempts`."""
        try:
            return await ask()
        except Transient as error:
            first = error
        return await self.again(ask, first)

    async def again(self, ask: Callable[[], Awaitable[Answer]], first: Transient) -> Answer:
        """The same, after a first try that failed."""
        from tenacity import AsyncRetrying, retry_if_exception_type

        failed, since, tries = [first], self._clock(), 0

        async def attempt() -> Answer:
            nonlocal tries
            tries += 1
            if failed:
                raise failed.pop()  # the first try, replayed for tenacity
            self.retried += 1
            return await ask()

        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=_Stop(lambda: self._clock() - since),
            wait=_pause,
            retry=retry_if_exception_type(Transient),
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except CallFailed as error:
            error.attempts = tries
            raise


class _Stop:
    """Counts one call's failures, and says when to stop."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds, self._kinds = seconds, Counter[str]()

    def __call__(self, state: RetryCallState) -> bool:
        kind = _error(state).kind
        self._kinds[kind] += kind not in FREE
        spent = self._kinds.total() >= TRIES or self._kinds["empty"] >= EMPTY_TRIES
        return spent or self._seconds() >= PATIENCE


def _pause(state: RetryCallState) -> float:
    from tenacity import wait_random_exponential

    if _error(state).retry_after is not None:
        return 0.0  # the throttle holds back the whole endpoint for that time
    return wait_random_exponential(multiplier=0.5, max=30)(state)


def _error(state: RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Transient)  # only these are retried
    return error
