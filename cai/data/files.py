"""Raw rows of a data file, one at a time: JSONL, JSON, CSV, parquet or arrow, each with its place in the file.

A row that cannot be read is yielded as an UnreadableRow that says why, so that one broken line costs one row and not
the file. Memory does not grow with the file, and no row of more than MAX_ROW bytes is held.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from cai.core.errors import Mistake

MAX_ROW = 4 << 20
"""Bytes of one row of text; a longer one is an UnreadableRow."""
_CHUNK = 1 << 16


class UnreadableRow(str):
    """A row that could not be read; the text says why."""


Row = tuple[str, object]
"""The place of a row (`train.jsonl:12`), and its value, which may be an UnreadableRow."""


def rows(path: Path) -> Iterator[Row]:
    """Every row of a file in its order. Raises Mistake for a file of another kind, or that cannot be opened."""
    reader = _READERS.get(suffix(path))
    if reader is None:
        raise Mistake(str(path), "is not a data file by its suffix", f"use one of {', '.join(_READERS)}")
    check_regular(path)
    _refuse_utf16(path)
    try:
        yield from reader(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Mistake(str(path), f"is not gzip to its end: {error}", "copy or download the file again") from error
    except OSError as error:
        raise Mistake(str(path), f"cannot be read: {error.strerror or error}", "check the file") from error


def count_rows(path: Path) -> int | None:
    """The rows of a file where they can be counted without parsing them, else None. Raises Mistake."""
    check_regular(path)
    try:
        match path.suffix.lower():
            case ".jsonl" | ".ndjson":
                with open(path, "rb") as file:
                    return sum(1 for line in file if line.strip())
            case ".parquet":
                return int(_open_parquet(path).metadata.num_rows)
    except OSError as error:
        raise Mistake(str(path), f"cannot be read: {error.strerror or error}", "check the file") from error
    return None


def check_regular(path: Path) -> None:
    """Raises Mistake for a device or a pipe, which may never end and cannot be read twice."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise Mistake(str(path), "is not a regular file", "copy its content to a file")


def suffix(path: Path) -> str:
    """`.jsonl` of `train.jsonl` and of `train.jsonl.gz`."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb") as file:
        yield cast(IO[bytes], file)


def _refuse_utf16(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(2)
    except OSError as error:
        raise Mistake(str(path), f"cannot be read: {error.strerror}", "check the path") from None
    if head in (b"\xff\xfe", b"\xfe\xff"):
        raise Mistake(str(path), "is UTF-16", "convert it: iconv -f UTF-16 -t UTF-8")


def _jsonl(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_ROW + 1):
            number += 1
            where = f"{path.name}:{number}"
            if len(line) > MAX_ROW:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_ROW)
                yield where, UnreadableRow(_LONG)
            elif line.strip():
                yield where, _loaded(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


_LONG = f"is longer than {MAX_ROW >> 20} MiB"


def _loaded(line: bytes) -> object:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        return UnreadableRow(f"is not UTF-8 at byte {error.start + 1}")
    except RecursionError:
        return UnreadableRow("is nested too deeply")
    except ValueError as error:
        return UnreadableRow(f"is not JSON: {error}")


def _json(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        start = file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        yield from _array(path)
    else:
        yield from _jsonl(path)  # many .json files hold one object a line


def _array(path: Path) -> Iterator[Row]:
    """Items of a JSON array, decoded while the file is read. After a broken item the next one cannot be found."""
    with _opened(path) as raw:
        text, number = _Text(raw), 0
        text.skip("[")
        while not text.skip("]"):
            number += 1
            value = text.value() if text.more() else UnreadableRow("is missing: the array does not end")
            yield f"{path.name}[{number}]", value
            if isinstance(value, UnreadableRow):
                return


class _Text:
    """JSON text, read from the file as far as it is needed."""

    _GAP = re.compile(r"[ \t\r\n,]*")

    def __init__(self, raw: IO[bytes]) -> None:
        self._file = _decoded(raw)
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def more(self) -> bool:
        """Go past white space and commas; False at the end of the file."""
        while True:
            self._at = cast(re.Match[str], self._GAP.match(self._text, self._at)).end()
            if self._at < len(self._text):
                return True
            self._text, self._at = self._file.read(_CHUNK), 0
            if not self._text:
                return False

    def skip(self, character: str) -> bool:
        """Go past `character` if it is what comes next."""
        found = self.more() and self._text.startswith(character, self._at)
        self._at += len(character) * found
        return found

    def value(self) -> object:
        """The JSON value that comes next, or an UnreadableRow."""
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError):
                value, end = UnreadableRow(f"is not JSON or {_LONG}, and nothing after it can be read"), len(self._text)
            short = end == len(self._text) and end - self._at <= MAX_ROW  # the value may continue after what was read
            # read as much again, so that a long row is not decoded many times
            more = self._file.read(max(_CHUNK, len(self._text))) if short else ""
            if not more:
                self._at = end
                return value
            self._text, self._at = self._text[self._at :] + more, 0


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_ROW)
    with _opened(path) as raw:
        reader = csv.DictReader(_decoded(raw))
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"{path.name}:{reader.line_num}", UnreadableRow(str(error))
                continue
            yield f"{path.name}:{reader.line_num}", {key: value for key, value in row.items() if key and value}


def _decoded(raw: IO[bytes]) -> io.TextIOWrapper:
    # bytes that are not UTF-8 become lone surrogates, so that they cost their row and not the file
    return io.TextIOWrapper(cast(Any, raw), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _parquet(path: Path) -> Iterator[Row]:
    yield from _numbered(path, _open_parquet(path).iter_batches(batch_size=256), "parquet")


def _open_parquet(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except ArrowException as error:
        raise _not_a(path, "parquet", error) from error


def _arrow(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException, ipc, memory_map

    try:
        stream = ipc.open_stream(memory_map(str(path)))
    except ArrowException as error:
        raise _not_a(path, "an arrow stream", error) from error
    yield from _numbered(path, stream, "an arrow stream")


def _numbered(path: Path, batches: Iterable[Any], kind: str) -> Iterator[Row]:
    from pyarrow import ArrowException

    values = (value for batch in batches for value in batch.to_pylist())
    try:
        yield from ((f"{path.name}[{number}]", value) for number, value in enumerate(values, 1))
    except (ArrowException, ValueError, OverflowError) as error:  # damaged pages; text that is not UTF-8; dates
        raise _not_a(path, kind, error) from error


def _not_a(path: Path, kind: str, error: Exception) -> Mistake:
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Mistake(str(path), f"is not {kind}: {what}", "check the file")


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
SUFFIXES = tuple(_READERS)
"""The suffixes of data files; `.gz` may follow those of text files."""
