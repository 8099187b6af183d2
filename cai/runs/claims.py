"""Which questions are being asked right now by any of the processes that share a journal.

A file of SLOTS slots is mapped into memory. A slot holds the first 8 bytes of a question's key and the process that
asks it: its number, and when it started, because numbers are used again, in a container almost at once. The claim of a
process that has died is free. Of two questions on one slot both are asked, and where the
file cannot be mapped nothing is claimed: a claim saves a call, and a right answer never depends on it.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cai.runs.lock import Lock

SLOTS = 1 << 16
_SLOT = struct.Struct("<8sQ")


class Claims:
    """The claims of all processes that have this file open."""

    def __init__(self, path: Path) -> None:
        self._owner, self._map, self._lock = _process(os.getpid()), None, Lock(path)
        with suppress(OSError, ValueError):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                os.ftruncate(file, SLOTS * _SLOT.size)
                self._map = mmap.mmap(file, SLOTS * _SLOT.size)
            finally:
                os.close(file)

    def take(self, key: bytes) -> bool:
        """Claim a question; False where another live process is asking it."""
        if self._map is None:
            return True
        place = _place(key)
        with self._lock:  # of two that claim in the same moment, one has to be the first
            claimed, owner = _SLOT.unpack_from(self._map, place)
            if owner not in (0, self._owner) and _process(owner >> 32) == owner:
                return bool(claimed != key[:8])  # on a slot that is taken by another question, nothing is claimed
            _SLOT.pack_into(self._map, place, key[:8], self._owner)
            return True

    def release(self, keys: Iterable[bytes]) -> None:
        """Give back the claims of this process on `keys`."""
        if self._map is None:
            return
        for key in keys:
            place = _place(key)
            if _SLOT.unpack_from(self._map, place) == (key[:8], self._owner):
                _SLOT.pack_into(self._map, place, bytes(8), 0)

    def close(self) -> None:
        """Unmap the file; claims that are left are free as soon as the process ends."""
        if self._map is not None:
            self._map.close()
            self._map = None
        self._lock.close()


def _place(key: bytes) -> int:
    return int.from_bytes(key[8:10], "big") % SLOTS * _SLOT.size


def _process(pid: int) -> int:
    """A live process: its number and, in the lower 32 bits, its start in clock ticks since boot; 0: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *others = file.read().rpartition(b")")[2].split()  # a name may contain spaces and parentheses
    except OSError:
        return pid << 32 if _exists(pid) else 0
    return 0 if state in (b"Z", b"X") else pid << 32 | int(others[18]) & 0xFFFFFFFF


def _exists(pid: int) -> bool:
    """Where the system has no /proc: a process of this number."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
