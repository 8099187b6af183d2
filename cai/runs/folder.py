"""The run folder: rows in input order, failures, manifest; each file whole or absent.

Rows finish in any order. They are appended to a spool as they come, and copied into input order at the end, so that
memory holds one offset a prompt and a slow prompt holds nobody back.

Left out on purpose: resuming from rows. The journal is what resumes; the rows are made again from its answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from cai.core.errors import Mistake
from cai.core.types import Failure, Pair, Trace
from cai.runs.files import atomic, writing

Row = TypeVar("Row", Trace, Pair, Failure)
Manifest = dict[str, Any]  # JSON as written: read by people and reports, not passed between stages

BUFFER = 1 << 17
"""Bytes of rows that are written at once."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ADAPTERS: dict[type, TypeAdapter[Any]] = {row: TypeAdapter(row) for row in (Trace, Pair, Failure)}


def folder(runs: Path, name: str) -> Path:
    """The folder of the run called `name`. Raises Mistake for a name that could leave `runs`."""
    if not _NAME.fullmatch(name):
        raise Mistake(repr(name), "is not a run name", "use letters, digits, '.', '_' and '-', at most 100")
    return runs / name


def named(path: Path) -> Path:
    """A file or folder as it is, or the run of that name under runs/."""
    run = Path("runs") / path
    return run if not path.exists() and (run / "manifest.json").exists() else path


class Spool(Generic[Row]):
    """Rows put in any order, by the position of their prompt; `finish` writes them in that order."""

    def __init__(self, path: Path, kind: type[Row]) -> None:
        self._path, self._dump = path, _ADAPTERS[kind].serializer.to_json
        path.parent.mkdir(parents=True, exist_ok=True)
        self._beside = path.with_name(f".{path.name}.spool")
        self._file = open(self._beside, "w+b", BUFFER)  # noqa: SIM115 (lives as long as the run)
        self._offsets, self._sizes = array("q"), array("q")
        self._end, self._ordered = 0, True
        self.rows = 0

    def put(self, position: int, rows: Iterable[Row]) -> None:
        """Append the rows of the prompt at `position`; put each position once."""
        lines = [self._dump(row, exclude_defaults=True) + b"\n" for row in rows]
        if not lines:
            return
        block = b"".join(lines)
        missing = position + 1 - len(self._offsets)
        self._ordered &= missing > 0
        if missing > 0:
            self._offsets.extend([0] * missing)
            self._sizes.extend([0] * missing)
        self._offsets[position], self._sizes[position] = self._end, len(block)
        self._file.write(block)
        self._end += len(block)
        self.rows += len(lines)

    def finish(self) -> None:
        """Write all rows in order to the final file, whole or not at all, and remove the spool."""
        if self._ordered:  # as they came: the spool is the file
            with writing(self._path), self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
                os.replace(self._beside, self._path)
            return
        with writing(self._path):
            self._file.flush()
        with atomic(self._path) as target:
            for offset, size in zip(self._offsets, self._sizes, strict=True):
                if size:
                    self._file.seek(offset)
                    target.write(self._file.read(size))
        self.discard()

    def discard(self) -> None:
        """Remove the spool without writing anything."""
        self._file.close()
        self._beside.unlink(missing_ok=True)


class Run:
    """A run folder. Reading streams; a row that does not fit raises Mistake with file and line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def manifest(self) -> Manifest:
        """What was done. Raises Mistake where there is no run."""
        file = self.path / "manifest.json"
        try:
            return dict(json.loads(file.read_text("utf-8")))
        except FileNotFoundError:
            raise Mistake(str(self.path), "holds no run", "make one with `cai run RECIPE`") from None
        except (ValueError, OSError) as error:
            raise Mistake(str(file), f"cannot be read: {error}", "run the recipe again") from error

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of its traces and pairs."""
        whole = hashlib.sha256()
        for file in (self.path / "traces.jsonl", self.path / "pairs.jsonl"):
            if file.is_file():
                with open(file, "rb") as content:
                    whole.update(hashlib.file_digest(content, "sha256").digest())
        return whole.hexdigest()

    @property
    def finished(self) -> Path:
        """The folder, if the run in it is finished. Raises Mistake."""
        if self.manifest["status"] != "finished":
            raise Mistake(str(self.path), "is not finished", "run the recipe again: it goes on where it stopped")
        return self.path

    def traces(self, only: Container[int] | None = None) -> Iterator[Trace]:
        """All traces, or those with these numbers, counted from 0."""
        return read(self.path / "traces.jsonl", Trace, only)

    def pairs(self) -> Iterator[Pair]:
        return read(self.path / "pairs.jsonl", Pair)

    def failures(self) -> Iterator[Failure]:
        return read(self.path / "failures.jsonl", Failure)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this run folder against a second process."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(str(self.path), f"cannot be made: {error.strerror}", "choose another folder") from error
        lock = FileLock(self.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise Mistake(str(self.path), "another cai process is working here", "wait for it, or use --name") from None
        try:
            yield
        finally:
            lock.release()


def read(path: Path, kind: type[Row], only: Container[int] | None = None) -> Iterator[Row]:
    """The rows of a JSONL file, or those numbered in `only`, one at a time; an absent file has none.

    Raises Mistake with file:line.
    """
    load = _ADAPTERS[kind].validator.validate_json
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if only is not None and number - 1 not in only:
                continue
            try:
                yield load(line)
            except ValidationError as error:
                what = error.errors()[0]
                place = ".".join(map(str, what["loc"])) or "the line"
                raise Mistake(f"{path}:{number}", f"{place}: {what['msg']}", "run the recipe again") from None
