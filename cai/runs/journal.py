"""The journal of model calls: what was answered once is not asked again, in this run or the next.

One SQLite file serves all runs of a `runs/` folder. An answer's key is the SHA-256 of what was sent and to whom; beside
each answer stands a digest of both, so that a damaged record is noticed, counted as absent and asked again. Answers
reach the disk in group commits, made by one thread per process under a file lock, so that durability costs the caller
nothing and several processes may share the file. A failed call is never an answer and never stored.

Left out on purpose: expiry. A journal grows until a person deletes it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from xxhash import xxh3_64_digest

from cai.core.errors import Mistake
from cai.core.types import Usage
from cai.runs.claims import Claims
from cai.runs.lock import Lock

VERSION = 2
"""1 had no digests; its answers are still read."""
WINDOW = 0.05
"""Seconds that the writer gathers answers before it commits them."""
GROUP = 256
"""Answers that make it commit at once."""
ROWS = 64
"""Answers in one statement; one each would take the interpreter from the event loop at every row."""
MANY = 100_000
"""Answers in a file of which not all keys are read when it is opened; there, every question is looked up."""
LOOK = 0.02
"""Seconds between looks for an answer that another process has asked for."""

Answer = TypeVar("Answer")


class Form(Generic[Answer]):
    """How answers of one kind are kept: `dump` makes JSON of one and `load` reads it; `usage` is what one took."""

    def __init__(self, kind: Any, usage: Callable[[Answer], Usage], fit: Callable[[Answer], Answer]) -> None:
        """`fit` is the answer as it can be kept; raises CallFailed for one that cannot be."""
        adapter: TypeAdapter[Answer] = TypeAdapter(kind)
        self.load: Callable[[bytes], Answer] = adapter.validator.validate_json
        self.dump: Callable[[Answer], bytes] = partial(adapter.serializer.to_json, exclude_defaults=True)
        self.usage, self.fit = usage, fit


class _Abandoned(Exception):
    """The task that asked was cancelled; whoever waits for its answer asks for itself."""


class Journal:
    """An open journal file. Close it, or use it as a context."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises Mistake where the file is not a journal, is newer, or cannot be written."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(path.with_suffix(".lock"))
        self._swap = threading.Lock()  # between put and the writer, which takes what is pending
        self._pending: dict[bytes, bytes] = {}
        self._committing: dict[bytes, bytes] = {}
        self._asking: dict[bytes, asyncio.Future[bytes] | None] = {}
        self._broken: Exception | None = None
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._damaged: set[bytes] = set()
        self.on_damage: Callable[[str], None] = lambda text: None
        """Takes one line when the first damaged record is met."""
        self._reader = self._connect()
        self._file = _identity(path)
        try:
            self._keys = _Keys(self._reader)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        self._claims = Claims(path.with_suffix(".claims"))
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    @property
    def damaged(self) -> int:
        """Records met so far whose content does not fit their digest."""
        return len(self._damaged)

    def get(self, key: bytes) -> bytes | None:
        """The stored answer, committed or on its way to disk. Raises Mistake where the file cannot be read."""
        # the writer moves answers pending -> committing -> file, so looking in that order misses none
        answer = self._pending.get(key) or self._committing.get(key)
        try:
            return answer or self._stored(key)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def put(self, key: bytes, answer: bytes) -> None:
        """Keep an answer; it is durable within WINDOW seconds plus one fsync."""
        if self._broken is not None:
            raise self._unwritable(self._broken)
        self._keys.add(key)
        with self._swap:
            self._pending[key] = answer
        if not self._wake.is_set():  # else the writer is about to look
            self._wake.set()

    async def once(self, key: bytes, ask: Callable[[], Awaitable[Answer]], form: Form[Answer]) -> tuple[Answer, bool]:
        """The answer to `key` and whether it had to be asked; equal questions in flight share one call.

        Where another process has asked for it, its answer is waited for. Raises what `ask` raises.
        """
        while key in self._asking:
            # the future is there for a second asker, and few questions have one
            other = self._asking[key] = self._asking[key] or asyncio.get_running_loop().create_future()
            try:
                return form.load(await asyncio.shield(other)), False
            except _Abandoned:
                continue
        if (found := self._load(key, form)) is not None:
            return found, False
        self._asking[key] = None
        try:
            if not self._claims.take(key) and (found := await self._of_another(key, form)) is not None:
                self._share(key, form.dump(found))
                return found, False
            answer = form.fit(await ask())
            raw = form.dump(answer)
            self.put(key, raw)
        except BaseException as error:
            self._claims.release((key,))
            if waiting := self._asking.pop(key):
                waiting.set_exception(error if isinstance(error, Exception) else _Abandoned())
                waiting.exception()  # mark as seen: who waits may be gone
            raise
        self._share(key, raw)
        return answer, True

    def close(self) -> None:
        """Commit what is left and let go of the file. Raises Mistake if answers could not be written."""
        self._closing.set()
        self._wake.set()
        self._writer.join()
        self._claims.close()
        with self._lock:  # closing the last connection checkpoints: a write like any other
            self._reader.close()
        self._lock.close()
        if self._broken is not None:
            raise self._unwritable(self._broken)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- Reading ------------------------------------------------------------------------------------------------------

    def _load(self, key: bytes, form: Form[Answer]) -> Answer | None:
        if (raw := self.get(key)) is None:
            return None
        try:
            return form.load(raw)
        except ValidationError:  # a record without a digest, of an earlier version
            self._damage(key)
            return None

    def _stored(self, key: bytes) -> bytes | None:
        if not self._keys.may_hold(key) or (row := self._reader.execute(_GET, (key,)).fetchone()) is None:
            return None
        answer, digest = row
        if key in self._damaged or not isinstance(answer, bytes) or digest not in (None, _digest(key, answer)):
            self._damage(key)
            return None
        return answer

    def _damage(self, key: bytes) -> None:
        if not self._damaged:
            self.on_damage(f"{self.path}: holds damaged answers; they count as absent and are asked again")
        self._damaged.add(key)

    def _unreadable(self, error: Exception) -> Mistake:
        fix = f"move it away, or save what is left with: sqlite3 {self.path.name} .recover | sqlite3 new.sqlite"
        return Mistake(str(self.path), f"the journal cannot be read: {error}", fix)

    async def _of_another(self, key: bytes, form: Form[Answer]) -> Answer | None:
        """The answer that another process is asking for; None where it has given up, and this one is to ask."""
        while True:
            await asyncio.sleep(LOOK)
            if (found := self._load(key, form)) is not None:
                return found
            if self._claims.take(key):
                self._keys.expire()
                return self._load(key, form)  # committed between the look and the claim, or not at all

    def _share(self, key: bytes, raw: bytes) -> None:
        if waiting := self._asking.pop(key):
            waiting.set_result(raw)

    # --- Writing ------------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        try:
            with self._lock:
                connection = sqlite3.connect(self.path, isolation_level=None, timeout=60, check_same_thread=False)
                return _prepared(connection, self.path)
        except Mistake:
            self._lock.close()
            raise
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise self._unwritable(error) from error

    def _write(self) -> None:
        try:
            connection = self._connect()
            while not (self._closing.is_set() and not self._pending):
                self._wake.wait()
                self._wake.clear()
                if len(self._pending) < GROUP:
                    self._closing.wait(WINDOW)
                self._commit(connection)
            with self._lock:
                connection.close()
        except Exception as error:  # a thread cannot raise it to a caller: put() and close() raise it instead
            self._broken = error

    def _commit(self, connection: sqlite3.Connection) -> None:
        if _identity(self.path) != self._file:
            raise self._removed()
        with self._swap:
            self._committing, self._pending = self._pending, {}
        # SQLite before 3.51.3 can lose a WAL to two writers at the wrong moment: one writer at a time, by lock
        with self._lock:
            connection.execute("BEGIN IMMEDIATE")
            if damaged := self._damaged & self._committing.keys():
                connection.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in damaged])
            flat = [part for key, answer in self._committing.items() for part in (key, answer, _digest(key, answer))]
            for start in range(0, len(flat), 3 * ROWS):
                some = flat[start : start + 3 * ROWS]
                connection.execute(_PUT + ", (?, ?, ?)" * (len(some) // 3 - 1), some)
            connection.execute("COMMIT")
        self._damaged -= self._committing.keys()
        self._claims.release(self._committing)
        self._committing = {}

    def _removed(self) -> Mistake:
        fix = "put it back, or run again: what it held is asked anew"
        return Mistake(str(self.path), "the journal was removed or replaced while it was in use", fix)

    def _unwritable(self, error: Exception) -> Mistake:
        if isinstance(error, Mistake):
            return error
        if getattr(self, "_file", None) not in (None, _identity(self.path)):
            return self._removed()
        return Mistake(str(self.path), f"the journal cannot be used: {error}", "free space, or move the file away")


_GET = "SELECT answer, digest FROM answers WHERE key = ?"
_NEW = "SELECT rowid, key FROM answers WHERE rowid > ?"
_PUT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)"


def _digest(key: bytes, answer: bytes) -> bytes:
    """64 bits that accidental damage to a key or to its answer changes; it is no protection against a forger."""
    return xxh3_64_digest(key + answer)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepared(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -256")  # KiB: keys come in no order, and a page is seldom wanted twice
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise Mistake(str(path), f"was written by a newer cai (journal version {version})", "upgrade cai")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables - {"answers"} and version == 0:
        raise Mistake(str(path), "is an SQLite file, but not a journal of cai", "move it away")
    # with a rowid: answers are appended and only the index is written all over, half the work of a sorted table
    connection.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer BLOB, digest BLOB)")
    if version == 1:
        connection.execute("ALTER TABLE answers ADD COLUMN digest BLOB")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    return connection


class _Keys:
    """Which answers the file may hold: most questions of a new run are not in it, and looking costs more than a hash.

    One bit for all keys of the same first 22 bits: half a MiB, however many there are. What other processes write is
    learned within WINDOW seconds.
    """

    def __init__(self, reader: sqlite3.Connection) -> None:
        self._reader, self._bits, self._learn_at = reader, bytearray(1 << 19), 0.0
        self._last = reader.execute("SELECT coalesce(max(rowid), 0) FROM answers").fetchone()[0]
        self._all = self._last <= MANY
        for (key,) in reader.execute("SELECT key FROM answers") if self._all else ():
            self.add(key)

    def add(self, key: bytes) -> None:
        place = int.from_bytes(key[:3], "big") >> 2
        self._bits[place >> 3] |= 1 << (place & 7)

    def expire(self) -> None:
        """What other processes wrote is looked for at the next question, without waiting for WINDOW."""
        self._learn_at = 0.0

    def may_hold(self, key: bytes) -> bool:
        """False only where `key` was not in the file up to WINDOW seconds ago."""
        if not self._all:
            return True
        if (now := time.monotonic()) >= self._learn_at:
            self._learn_at = now + WINDOW
            for number, other in self._reader.execute(_NEW, (self._last,)):
                self._last = number
                self.add(other)
        place = int.from_bytes(key[:3], "big") >> 2
        return bool(self._bits[place >> 3] >> (place & 7) & 1)
