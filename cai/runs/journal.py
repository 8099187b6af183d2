"""The journal of model calls: what was answered once is not asked again, in this run or the next.

One SQLite file serves all runs of a `runs/` folder. An answer's key is the SHA-256 of what was sent and to whom.
Answers reach the disk in group commits, made by one thread per process under a file lock, so that durability costs
the caller nothing and several processes may share the file. A failed call is never an answer and never stored.

Left out on purpose: expiry. A journal grows until a person deletes it; SQLite keeps a million answers happily.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from json import JSONEncoder
from math import isfinite
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json

from cai.core.errors import Mistake, Permanent
from cai.core.types import Completion, Model, Request, Score, Usage
from cai.runs.budget import Budget, CallTally, Price
from cai.runs.lock import Lock

VERSION = 1
WINDOW = 0.05
"""Seconds that the writer gathers answers before it commits them."""
GROUP = 256
"""Answers that make it commit at once."""
ROWS = 64
"""Answers in one statement; one each would fight the event loop for the interpreter at every row."""
MANY = 100_000
"""Answers in a file of which not all keys are read when it is opened; there, every question is looked up."""

_encode = JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
Answer = TypeVar("Answer")


class Form(Generic[Answer]):
    """How answers of one kind are kept: `dump` makes JSON of one and `load` reads it; `usage` is what one took."""

    def __init__(self, kind: Any, usage: Callable[[Answer], Usage], fit: Callable[[Answer], Answer]) -> None:
        """`fit` is the answer as it can be kept; raises CallFailed for one that cannot be."""
        adapter: TypeAdapter[Answer] = TypeAdapter(kind)
        self.load: Callable[[bytes], Answer] = adapter.validator.validate_json
        self.dump: Callable[[Answer], bytes] = partial(adapter.serializer.to_json, exclude_defaults=True)
        self.usage, self.fit = usage, fit


class Journal:
    """An open journal file; `through(model)` is that model with a memory. Close it, or use it as a context."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises Mistake where the file is not a journal, is newer, or cannot be written."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(path.with_suffix(".lock"))
        self._pending: dict[bytes, bytes] = {}
        self._committing: dict[bytes, bytes] = {}
        self._asking: dict[bytes, asyncio.Future[bytes] | None] = {}
        self._broken: Exception | None = None
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._reader = self._connect()
        self._keys = _Keys(self._reader)
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def through(
        self, model: Model, tally: CallTally, budget: Budget | None = None, price: Price | None = None
    ) -> Journaled:
        """`model`, asked through this journal; new calls are claimed from `budget` at `price`."""
        return Journaled(self, model, tally, budget, price)

    def get(self, key: bytes) -> bytes | None:
        """The stored answer, committed or on its way to disk."""
        # the writer moves answers pending -> committing -> file, so looking in that order misses none
        answer = self._pending.get(key) or self._committing.get(key)
        if answer is None and self._keys.may_hold(key) and (row := self._reader.execute(_GET, (key,)).fetchone()):
            answer = row[0]
        return answer

    def put(self, key: bytes, answer: bytes) -> None:
        """Keep an answer; it is durable within WINDOW seconds plus one fsync."""
        if self._broken is not None:
            raise self._unwritable(self._broken)
        self._keys.add(key)
        self._pending[key] = answer
        if not self._wake.is_set():  # else the writer is about to look
            self._wake.set()

    async def once(self, key: bytes, ask: Callable[[], Awaitable[Answer]], form: Form[Answer]) -> tuple[Answer, bool]:
        """The answer to `key` and whether it had to be asked; equal questions in flight share one call."""
        if (found := self.get(key)) is not None:
            return form.load(found), False
        if key in self._asking:
            # the future is there for a second asker, and few questions have one
            other = self._asking[key] = self._asking[key] or asyncio.get_running_loop().create_future()
            return form.load(await asyncio.shield(other)), False
        self._asking[key] = None
        try:
            answer = form.fit(await ask())
            raw = form.dump(answer)
            self.put(key, raw)
        except BaseException as error:
            if waiting := self._asking.pop(key):
                waiting.set_exception(error) if isinstance(error, Exception) else waiting.cancel()
                waiting.exception() if not waiting.cancelled() else None  # mark as seen: who waits may be gone
            raise
        if waiting := self._asking.pop(key):
            waiting.set_result(raw)
        return answer, True

    def close(self) -> None:
        """Commit what is left and let go of the file. Raises Mistake if answers could not be written."""
        self._closing.set()
        self._wake.set()
        self._writer.join()
        with self._lock:  # closing the last connection checkpoints: a write like any other
            self._reader.close()
        self._lock.close()
        if self._broken is not None:
            raise self._unwritable(self._broken)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

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
        except Exception as error:  # a thread has nobody to raise to: put() and close() raise it instead
            self._broken = error

    def _commit(self, connection: sqlite3.Connection) -> None:
        self._committing, self._pending = self._pending, {}
        # SQLite before 3.51.3 can lose a WAL to two writers at the wrong moment: one writer at a time, by lock
        with self._lock:
            connection.execute("BEGIN IMMEDIATE")
            flat = [part for row in self._committing.items() for part in row]
            for start in range(0, len(flat), 2 * ROWS):
                some = flat[start : start + 2 * ROWS]
                connection.execute(_PUT + ", (?, ?)" * (len(some) // 2 - 1), some)
            connection.execute("COMMIT")
        self._committing = {}

    def _unwritable(self, error: Exception) -> Mistake:
        if isinstance(error, Mistake):
            return error
        return Mistake(str(self.path), f"the journal cannot be used: {error}", "free space, or move the file away")


_GET = "SELECT answer FROM answers WHERE key = ?"
_NEW = "SELECT rowid, key FROM answers WHERE rowid > ?"
_PUT = "INSERT OR IGNORE INTO answers VALUES (?, ?)"


def _prepared(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -256")  # KiB: keys come in no order, and a page is seldom wanted twice
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise Mistake(str(path), f"was written by a newer cai (journal version {version})", "upgrade cai")
    # with a rowid: answers are appended and only the index is written all over, half the work of a sorted table
    connection.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer BLOB)")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    return connection


class _Keys:
    """Which answers the file may hold: most questions of a new run are not in it, and looking costs more than a hash.

    One bit for all keys of the same first 22 bits: half a MiB, however many there are. What other processes write is
    learned within WINDOW seconds; a question that two ask in the same moment is asked twice anyway.
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

    def may_hold(self, key: bytes) -> bool:
        """False only where nobody had written `key` to the file a moment ago."""
        if not self._all:
            return True
        if (now := time.monotonic()) >= self._learn_at:
            self._learn_at = now + WINDOW
            for number, other in self._reader.execute(_NEW, (self._last,)):
                self._last = number
                self.add(other)
        place = int.from_bytes(key[:3], "big") >> 2
        return bool(self._bits[place >> 3] >> (place & 7) & 1)


class Journaled:
    """A Model whose answers are looked up before they are asked for."""

    def __init__(
        self, journal: Journal, model: Model, tally: CallTally, budget: Budget | None, price: Price | None
    ) -> None:
        self._journal, self._model, self.tally = journal, model, tally
        self._budget, self._price = budget if budget and budget.limited else None, price
        # what all keys of this model begin with, hashed once
        heads = {verb: _encode([verb, dict(model.identity)]).encode() for verb in ("complete", "score")}
        self._heads = {verb: hashlib.sha256(head) for verb, head in heads.items()}
        self.tally.new_cost = None if price is None else 0.0

    @property
    def identity(self) -> Mapping[str, str]:
        return self._model.identity

    @property
    def concurrency(self) -> int:
        return self._model.concurrency

    @property
    def cost(self) -> float | None:
        """What all answers so far cost, found ones too; None where the price is not known."""
        return self._price.of(self.tally.usage) if self._price else None

    async def complete(self, request: Request) -> Completion:
        ask = partial(self._asked, request, partial(self._model.complete, request), COMPLETION)
        completion, new = await self._journal.once(self._key("complete", request), ask, COMPLETION)
        self._count(new, completion.usage)
        return completion

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        ask = partial(self._asked, request, partial(self._model.score, request, continuations), SCORES)
        scores, new = await self._journal.once(self._key("score", request, *continuations), ask, SCORES)
        self._count(new, _read(scores))
        return scores

    def _asked(self, request: Request, call: Callable[[], Awaitable[Answer]], form: Form[Answer]) -> Awaitable[Answer]:
        """A new call, counted also if it fails. Raises BudgetReached."""
        if self._budget is None:
            self.tally.asked += 1
            return call()
        claimed = self._budget.claim(request, self._price)
        self.tally.asked += 1
        return self._settled(self._budget, claimed, request, call, form)

    async def _settled(
        self, budget: Budget, claimed: Usage, request: Request, call: Callable[[], Awaitable[Answer]],
        form: Form[Answer],
    ) -> Answer:  # fmt: skip
        used = Usage()
        try:
            answer = await call()
            used = form.usage(answer)
            return answer
        finally:
            budget.settle(claimed, used, self._price, request)

    def status(self) -> Mapping[str, float]:
        """What the model says it is doing; nothing where its backend does not say."""
        return status() if (status := getattr(self._model, "status", None)) else {}

    async def close(self) -> None:
        if close := getattr(self._model, "close", None):
            await close()

    def _key(self, verb: str, request: Request, *more: str) -> bytes:
        sampling = request.sampling
        greedy = sampling.temperature == 0  # then neither the seed nor top_p can change the answer
        chance = (0, 1, 0) if greedy else (sampling.temperature, sampling.top_p, request.seed)
        sent = (
            [(message.role, message.content) for message in request.messages],
            request.plain,
            (*chance, sampling.max_tokens, sampling.stop),
            more,
        )
        key = self._heads[verb].copy()
        try:
            key.update(to_json(sent))
        except ValueError:  # half a surrogate pair, of which pydantic makes no JSON
            key.update(_encode(sent).encode("utf-8", "surrogatepass"))
        return key.digest()

    def _count(self, new: bool, usage: Usage) -> None:
        tally = self.tally
        tally.add(new, usage)
        if new and self._price and tally.new_cost is not None:
            tally.new_cost += self._price.of(usage)


def _read(scores: Sequence[Score]) -> Usage:
    """A score writes nothing: its continuations are read after the prompt, once."""
    prompt = max((score.prompt_tokens for score in scores), default=0)
    return Usage(prompt + sum(score.tokens for score in scores))


def _whole(completion: Completion) -> Completion:
    # an endpoint can cut an emoji in half; a lone surrogate is no Unicode text and no file can hold it
    if completion.text.isascii() and not completion.thinking:
        return completion
    text, thinking = (part and part.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                      for part in (completion.text, completion.thinking))  # fmt: skip
    return replace(completion, text=text or "", thinking=thinking)


def _finite(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    if not all(isfinite(score.logprob) for score in scores):
        raise Permanent("not_a_number", "a log-probability is infinite or no number")
    return scores


COMPLETION: Form[Completion] = Form(Completion, attrgetter("usage"), _whole)
SCORES: Form[tuple[Score, ...]] = Form(tuple[Score, ...], _read, _finite)


class Unasked:
    """A Model that answers nothing: behind a journal it shows what a run would still have to ask."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.identity, self.concurrency = model.identity, 1

    async def complete(self, request: Request) -> Completion:
        raise Permanent("unasked", "not in the journal")

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        raise Permanent("unasked", "not in the journal")

    def status(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        if close := getattr(self._model, "close", None):
            await close()
