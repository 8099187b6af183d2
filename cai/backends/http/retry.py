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

from cai.backends.http.errors import BUSY, LONGEST
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
FIRST_TRIES = 3
"""Misunderstood answers to one call while none of the endpoint's answers has been understood: they may all be so."""
FREE = (*BUSY, "unreachable")
"""Kinds that are limited by PATIENCE alone."""


class Retry:
    """Calls until there is an answer. `retried` counts the tries after the first, `reasons` what they were for."""

    def __init__(
        self,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        understood: Callable[[], bool] = lambda: True,
        held: bool = True,
    ) -> None:
        """`understood`: whether any answer has been. `held`: whether a throttle waits as long as the server asks."""
        self._sleep, self._clock, self._understood, self._held = sleep, clock, understood, held
        self.retried = 0
        self.reasons = Counter[str]()

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

        failed, tries, reason = [first], 0, first.kind

        async def attempt() -> Answer:
            nonlocal tries, reason
            tries += 1
            if failed:
                raise failed.pop()  # the first try, replayed for tenacity
            self.retried += 1
            self.reasons[reason] += 1
            try:
                return await ask()
            except Transient as error:
                reason = error.kind
                raise

        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=_Stop(self._clock, self._understood),
            wait=self._pause,
            retry=retry_if_exception_type(Transient),
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except CallFailed as error:
            error.attempts = tries
            raise

    def _pause(self, state: RetryCallState) -> float:
        from tenacity import wait_random_exponential

        asked = _error(state).retry_after
        if asked:
            return 0.0 if self._held else asked
        return wait_random_exponential(multiplier=0.5, max=30)(state)


class _Stop:
    """Counts one call's failures, and says when to stop."""

    def __init__(self, clock: Callable[[], float], understood: Callable[[], bool]) -> None:
        self._clock, self._understood, self._kinds = clock, understood, Counter[str]()
        self._until = clock() + PATIENCE

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        if error.retry_after and error.retry_after > LONGEST:  # a limit of a day, for which the user chose to wait
            self._until += error.retry_after
        self._kinds[error.kind] += error.kind not in FREE
        spent = self._kinds.total() >= TRIES or self._kinds["empty"] >= EMPTY_TRIES
        lost = self._kinds["malformed"] >= FIRST_TRIES and not self._understood()
        return spent or lost or self._clock() >= self._until


def _error(state: RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Transient)  # only these are retried
    return error
