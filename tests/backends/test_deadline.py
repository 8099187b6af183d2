"""One timer for all answers: each gets its time and no more, and one that came in time keeps what it is."""

from __future__ import annotations

import asyncio

import pytest

from cai.backends.http.deadline import Deadline


async def within(deadline: Deadline, answer: asyncio.Future[float]) -> float:
    deadline.watch(answer)
    try:
        return await answer
    finally:
        deadline.done(answer)


def later(seconds: float) -> asyncio.Future[float]:
    """A future that is answered after so long."""
    answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, lambda: answer.done() or answer.set_result(seconds))
    return answer


async def test_what_takes_too_long_ends() -> None:
    deadline = Deadline(0.05)
    with pytest.raises(TimeoutError):
        await within(deadline, later(10))
    assert await within(deadline, later(0)) == 0


async def test_each_has_its_own_time_from_its_own_beginning() -> None:
    deadline, loop = Deadline(0.2), asyncio.get_running_loop()

    async def late(after: float) -> float:
        await asyncio.sleep(after)
        began = loop.time()
        with pytest.raises(TimeoutError):
            await within(deadline, later(10))
        return loop.time() - began

    spans = await asyncio.gather(*(late(after) for after in (0.0, 0.05, 0.1, 0.15)))
    assert all(0.19 < span < 0.35 for span in spans)


async def test_one_in_time_between_late_ones_is_answered() -> None:
    deadline = Deadline(0.1)
    found = await asyncio.gather(
        *(within(deadline, later(seconds)) for seconds in (5, 0.05, 5, 0.01)), return_exceptions=True
    )
    assert [found[1], found[3]] == [0.05, 0.01]
    assert all(isinstance(found[place], TimeoutError) for place in (0, 2))


async def test_one_that_nobody_saw_yet_keeps_what_it_is() -> None:
    deadline = Deadline(0.01)
    answer = later(0)
    deadline.watch(answer)
    await asyncio.sleep(0.05)  # answered, and past its time before anybody looks
    assert await answer == 0


async def test_a_cancelled_task_is_cancelled_and_not_late() -> None:
    task = asyncio.create_task(within(Deadline(0.02), later(10)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)  # the alarm finds nothing to ring for
