"""Files and folders of a run: each appears whole or not at all, and symbolic links are not followed when writing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from cai.core.errors import Mistake
from cai.core.types import JsonObject

Record = TypeVar("Record")


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at `path` whole, or not at all: written beside it, flushed to disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with writing(path):
            with open_new(beside) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
            sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises Mistake where what is written within fails."""
    try:
        yield
    except OSError as error:
        fix = "remove the link" if path.is_symlink() else "free space, or another folder"
        raise Mistake(str(path), f"cannot be written: {error.strerror}", fix) from error


def open_new(path: Path, mode: str = "wb", buffering: int = -1) -> IO[bytes]:
    """A new, empty file at `path`; what was there, also a symbolic link, is removed and not written through."""
    path.unlink(missing_ok=True)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW, 0o666)

    return open(path, mode, buffering, opener=opener)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable. File systems that cannot sync a folder are left alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair from a model is shown, not fatal


def write_json(path: Path, value: Mapping[str, object] | list[object]) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def appended(path: Path) -> list[JsonObject]:
    """The whole lines of a file that `append` writes; one that a full disk or a kill has torn is left out."""
    found = list[dict[str, Any]]()
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            found.append(dict(json.loads(line)))
    return found


def append(path: Path, value: Mapping[str, object]) -> None:
    """Add one line of JSON to a file that is read while it grows."""
    with (
        writing(path),
        open(path, "ab", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)) as file,
    ):
        file.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def _no_link(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)


@contextmanager
def replaced_folder(folder: Path, allowed: Callable[[Path], None] = lambda folder: None) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` at the end.

    After an error `folder` is as it was. `allowed` raises for a folder that must not be replaced. Two renames cannot be
    one: where the process dies between them, the old content is in `.NAME.old`, and `restored` brings it back.
    """
    folder = folder.parent.resolve() / folder.name
    restored(folder)
    allowed(folder)
    beside, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    for left_over in (beside, old):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        with writing(folder):
            beside.mkdir(parents=True)
        yield beside
        with writing(folder):
            _swap(beside, folder, old)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _swap(beside: Path, folder: Path, old: Path) -> None:
    sync_folder(beside)
    if folder.is_symlink():
        raise OSError(0, "is a symbolic link, which is not replaced")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(beside, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise
    sync_folder(folder.parent)


def restored(folder: Path) -> Path:
    """`folder`, with its old content back in place where a process died while it replaced the folder."""
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.is_dir():
        with writing(folder):
            os.replace(old, folder)
            sync_folder(folder.parent)
    return folder


def refuse_links(folder: Path, depth: int = 2) -> None:
    """Raises Mistake where something in `folder`, down to `depth` levels, is a symbolic link."""
    for entry in os.scandir(folder):
        if entry.is_symlink():
            raise Mistake(entry.path, "is a symbolic link, and cai does not write through links", "remove the link")
        if depth > 1 and entry.is_dir():
            refuse_links(Path(entry.path), depth - 1)


def record_as_json(record: object) -> dict[str, object]:
    """A typed record as JSON values, by the names that its file uses."""
    found: dict[str, object] = _adapter(cast(Hashable, type(record))).dump_python(record, mode="json", by_alias=True)
    return found


def read_record(path: Path, kind: type[Record], fix: str) -> Record:
    """The typed record in a JSON file; unknown keys are ignored. Raises Mistake with the first thing wrong."""
    try:
        found: Record = _adapter(cast(Hashable, kind)).validate_json(path.read_bytes(), by_alias=True)
    except FileNotFoundError:
        raise Mistake(str(path.parent), f"has no {path.name}", fix) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise Mistake(str(path), f"{place}: {first['msg']}", fix) from None
    except OSError as error:
        raise Mistake(str(path), f"cannot be read: {error.strerror}", fix) from error
    return found


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))
