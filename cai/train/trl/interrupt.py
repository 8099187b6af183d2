"""Ctrl-C while training: the step is finished, a checkpoint saved, and then KeyboardInterrupt is raised.

A second Ctrl-C stops at once.

Left out on purpose: signals in other threads; a training that is not in the main thread is stopped as any other code.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Stop:
    """Whether a person has asked for the end."""

    asked: bool = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """A Stop that SIGINT or SIGTERM sets. Raises KeyboardInterrupt on leaving where it was set."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.asked:
        raise KeyboardInterrupt
