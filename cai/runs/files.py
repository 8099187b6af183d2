"""Files of a run: each appears whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cai.core.errors import Mistake


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at `path` whole, or not at all: written beside it, flushed to disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with writing(path):
            with open(beside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises Mistake where what is written within fails."""
    try:
        yield
    except OSError as error:
        raise Mistake(str(path), f"cannot be written: {error.strerror}", "free space, or another folder") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair from a model is shown, not fatal


def write_json(path: Path, value: Mapping[str, object] | list[object]) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def appended(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that `append` writes; one that a full disk or a kill has torn is left out."""
    found = list[dict[str, Any]]()
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            found.append(dict(json.loads(line)))
    return found


def append(path: Path, value: Mapping[str, object]) -> None:
    """Add one line of JSON to a file that is read while it grows."""
    with writing(path), open(path, "ab") as file:
        file.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
