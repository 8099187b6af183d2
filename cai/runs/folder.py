"""The run folder: rows in input order, failures, manifest; each file whole or absent.

Rows finish in any order. They are appended to a spool as they come, and copied into input order at the end, so that
memory holds one offset for each prompt, and a slow prompt delays no other.

Left out on purpose: resuming from rows. The journal is what resumes; the rows are made again from its answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from array import array
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from cai.core.errors import Mistake
from cai.core.seeds import file_digest
from cai.core.types import Failure, Pair, Trace
from cai.runs.files import atomic, open_new, refuse_links, sync_folder, write_json, writing
from cai.runs.manifest import FILE as MANIFEST
from cai.runs.manifest import Manifest

Row = TypeVar("Row", Trace, Pair, Failure)
INCOMPLETE, PREVIOUS, REPLACE = "incomplete", "previous", "replace.json"

BUFFER = 1 << 17
"""Bytes of rows that are written at once."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ADAPTERS: dict[type, TypeAdapter[Any]] = {row: TypeAdapter(row) for row in (Trace, Pair, Failure)}


def run_folder(runs: Path, name: str) -> Path:
    """The folder of the run called `name`. Raises Mistake for a name that could leave `runs`."""
    if not _NAME.fullmatch(name):
        raise Mistake(repr(name), "is not a run name", "use letters, digits, '.', '_' and '-', at most 100")
    return runs / name


def resolve_run(path: Path, runs: Path = Path("runs")) -> Path:
    """The folder of a run: a folder that holds one, else the run of that name under `runs`, else `path` as it is."""
    named = runs / path
    return named if not _is_run(path) and _is_run(named) else path


def resolve_data(path: Path, runs: Path = Path("runs")) -> Path:
    """A file or folder of rows as it is, or the run of that name under `runs`."""
    return path if path.exists() else resolve_run(path, runs)


def _is_run(path: Path) -> bool:
    return (path / MANIFEST).exists() or (path / INCOMPLETE / REPLACE).exists()


class Spool(Generic[Row]):
    """Rows put in any order, by the position of their prompt; `finish` writes them in that order."""

    def __init__(self, path: Path, kind: type[Row]) -> None:
        self._path, self._dump = path, _ADAPTERS[kind].serializer.to_json
        path.parent.mkdir(parents=True, exist_ok=True)
        self._beside = path.with_name(f".{path.name}.spool")
        self._file = open_new(self._beside, "w+b", BUFFER)
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
                sync_folder(self._path.parent)
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
        if (self.path / INCOMPLETE / REPLACE).exists():  # a kill interrupted the replacement of its rows
            with self.locked():
                self.recover()
        if not (self.path / MANIFEST).exists():
            raise Mistake(str(self.path), "holds no run", "make one with `cai run RECIPE`")
        return Manifest.read(self.path)

    @property
    def earlier(self) -> Manifest | None:
        """The manifest, None where there is no run yet. Raises Mistake for one that cannot be read."""
        return self.manifest if (self.path / MANIFEST).exists() else None

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of its traces and pairs."""
        files = (self.path / "traces.jsonl", self.path / "pairs.jsonl")
        whole = hashlib.sha256(b"".join(bytes.fromhex(file_digest(file)) for file in files if file.is_file()))
        return whole.hexdigest()

    @property
    def finished(self) -> Path:
        """The folder, if the run in it is finished. Raises Mistake."""
        if self.manifest.status != "finished":
            raise Mistake(str(self.path), "is not finished", "run the recipe again: it goes on where it stopped")
        return self.path

    def traces(self, only: Container[int] | None = None) -> Iterator[Trace]:
        """All traces, or those with these numbers, counted from 0."""
        return read_rows(self.path / "traces.jsonl", Trace, only)

    def pairs(self) -> Iterator[Pair]:
        return read_rows(self.path / "pairs.jsonl", Pair)

    def failures(self) -> Iterator[Failure]:
        return read_rows(self.path / "failures.jsonl", Failure)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this run folder against a second process; within one process it may be held several times at once."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(str(self.path), f"cannot be made: {error.strerror}", "choose another folder") from error
        refuse_links(self.path)
        lock = FileLock(self.path.resolve() / ".lock", blocking=False, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise Mistake(str(self.path), "another cai process is working here", "wait for it, or use --name") from None
        except OSError as error:
            fix = "use a folder on a local disk"
            raise Mistake(str(self.path / ".lock"), f"cannot be locked: {error.strerror}", fix) from error
        try:
            yield
        finally:
            lock.release()

    # --- Replacing the rows of a finished run -------------------------------------------------------------------------

    @property
    def incomplete(self) -> Run:
        """Where new rows are written while those of a finished run are still in place."""
        return Run(self.path / INCOMPLETE)

    def replace_rows(self, *, keep: bool) -> Path | None:
        """Put the rows in `incomplete` into place; with `keep`, move all that the run holds to `previous/N` first.

        The folder of what was kept. Raises Mistake; whatever happens, the next `recover` completes it.
        """
        kept = _next_previous(self.path) if keep else None
        write_json(self.incomplete.path / REPLACE, {"keep": str(kept.relative_to(self.path)) if kept else None})
        self.recover()
        return kept

    def recover(self) -> None:
        """Complete a replacement that a kill or a full disk interrupted; hold the lock meanwhile. Raises Mistake."""
        note = self.incomplete.path / REPLACE
        if not note.is_file():
            return
        keep = json.loads(note.read_text("utf-8"))["keep"]
        with writing(self.path):
            if keep:
                _move(self.path, self.path / keep, leave={".lock", INCOMPLETE, PREVIOUS})
                write_json(note, {"keep": None})
            _move(self.incomplete.path, self.path, leave={REPLACE, ".lock"}, last=MANIFEST)
            shutil.rmtree(self.incomplete.path)
            sync_folder(self.path)


def _next_previous(path: Path) -> Path:
    taken = [int(entry.name) for entry in (path / PREVIOUS).glob("*") if entry.name.isdecimal()]
    return path / PREVIOUS / f"{max(taken, default=0) + 1:03d}"


def _move(source: Path, target: Path, *, leave: Container[str], last: str = "") -> None:
    """Move everything in `source` into `target` by renames, `last` after all others."""
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted((entry.name for entry in source.iterdir()), key=lambda name: (name == last, name)):
        if name not in leave:
            os.replace(source / name, target / name)
    sync_folder(target)
    sync_folder(source)


def read_rows(path: Path, kind: type[Row], only: Container[int] | None = None) -> Iterator[Row]:
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
