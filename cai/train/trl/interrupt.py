"""Handles Ctrl-C during training: the current step is finished, a checkpoint saved, then KeyboardInterrupt is raised.

A second Ctrl-C stops immediately. Signals are handled only in the main thread.
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
    """Whether the user asked to stop."""

    asked: bool = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """A Stop that SIGINT or SIGTERM sets. Raises KeyboardInterrupt on exit where it was set."""
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
