"""One timer for all requests: each gets its time and no more, and nobody else's cancelling is taken for a time-out."""

from __future__ import annotations

import asyncio

import pytest

from cai.backends._deadline import Deadline


async def test_what_takes_too_long_ends_and_the_task_goes_on() -> None:
    deadline = Deadline(0.05)
    with pytest.raises(TimeoutError):
        await deadline.within(asyncio.sleep(10))
    await asyncio.sleep(0)  # would raise if the cancelling were still about
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await deadline.within(asyncio.sleep(0, "in time")) == "in time"


async def test_each_has_its_own_time_from_its_own_beginning() -> None:
    deadline, loop = Deadline(0.2), asyncio.get_running_loop()

    async def late(after: float) -> float:
        await asyncio.sleep(after)
        began = loop.time()
        with pytest.raises(TimeoutError):
            await deadline.within(asyncio.Event().wait())
        return loop.time() - began

    spans = await asyncio.gather(*(late(after) for after in (0.0, 0.05, 0.1, 0.15)))
    assert all(0.19 < span < 0.35 for span in spans)


async def test_one_in_time_between_late_ones_is_answered() -> None:
    deadline = Deadline(0.1)
    found = await asyncio.gather(
        *(deadline.within(asyncio.sleep(seconds, seconds)) for seconds in (5, 0.05, 5, 0.01)), return_exceptions=True
    )
    assert [found[1], found[3]] == [0.05, 0.01]
    assert all(isinstance(found[place], TimeoutError) for place in (0, 2))


async def test_a_cancelled_task_is_cancelled_and_not_late() -> None:
    task = asyncio.create_task(Deadline(10).within(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_is_passed_on() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Deadline(10).within(fails())


async def test_cancelled_from_outside_in_the_moment_it_fell_due_it_is_cancelled() -> None:
    deadline = Deadline(0.02)
    task = asyncio.create_task(deadline.within(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    task.cancel()  # as often as a deadline and somebody else would
    with pytest.raises(asyncio.CancelledError):
        await task
