"""A lock between processes for work that takes a moment and comes often: taking a file lock costs a call of the kernel.

filelock, which serves where a lock is held long, opens, checks and closes a file each time and takes seventy times as
long; where the system has no `flock`, it serves here too.

Left out on purpose: time-outs and threads. Whoever shares a lock within a process takes turns by himself.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock

try:
    from fcntl import LOCK_EX, LOCK_UN, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]


class Lock:
    """Held within `with`. Raises OSError where the file cannot be made."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, -1
        self._other = FileLock(path) if flock is None else None

    def __enter__(self) -> None:
        if self._other is not None:
            self._other.acquire()
            return
        while True:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            flock(self._file, LOCK_EX)
            if os.fstat(self._file).st_nlink:
                return
            self.close()  # the file was removed, and others will lock a new one

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._other is not None:
            self._other.release()
        else:
            flock(self._file, LOCK_UN)

    def close(self) -> None:
        """Let go of the file; it stays where it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
