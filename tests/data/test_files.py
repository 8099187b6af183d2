"""Raw rows of data files: whatever is whole comes through, the rest says what is wrong with it."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cai.core.errors import Mistake
from cai.data import files
from cai.data.files import UnreadableRow

ROW = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
GOOD = json.dumps(ROW).encode()


def read(path: Path) -> tuple[list[Any], list[UnreadableRow]]:
    values = [value for _, value in files.rows(path)]
    return [value for value in values if not isinstance(value, UnreadableRow)], [
        value for value in values if isinstance(value, UnreadableRow)
    ]


@pytest.mark.parametrize(
    ("content", "pairs", "bad"),
    [(b"", 0, 0), (b"[]", 0, 0), (b"[" + GOOD, 1, 1), (b"[" + GOOD + b", {]", 1, 1), (b"[" + GOOD + b"] x", 1, 0)],
)
def test_a_broken_array_gives_what_is_whole(tmp_path: Path, content: bytes, pairs: int, bad: int) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    assert tuple(map(len, read(path))) == (pairs, bad)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("p.jsonl", "\ufeff".encode("utf-16-le") + b"{\x00", "UTF-16"),
        ("p.jsonl.gz", gzip.compress(GOOD * 1000, mtime=0)[:40], "not gzip to its end"),
        ("p.jsonl.gz", GOOD, "not gzip"),
        ("p.parquet", GOOD, "is not parquet"),
        ("p.arrow", GOOD, "is not an arrow stream"),
    ],
)
def test_a_file_that_is_something_else_is_a_mistake(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Mistake, match=what):
        read(tmp_path / name)


@given(
    st.lists(st.integers() | st.text() | st.dictionaries(st.text(max_size=3), st.text()), max_size=8),
    st.integers(1, 9),
    st.sampled_from([None, 1]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_array_is_the_same_in_pieces_of_any_size(
    tmp_path: Path, listed: list[object], piece: int, indent: int | None
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(listed, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK", piece)
        assert [value for _, value in files.rows(path)] == listed


def test_an_overlong_item_ends_an_array_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([ROW, ROW | {"chosen": "x" * 10_000_000}, ROW]))
    first, second = files.rows(path)
    assert first[1] == ROW
    assert isinstance(second[1], UnreadableRow)
    assert "nothing after it can be read" in second[1]


def test_bytes_that_are_no_text_cost_their_row_in_every_kind_of_file(tmp_path: Path) -> None:
    from cai.core.types import Failure
    from cai.data.pairs import read_pairs

    lines = [GOOD, GOOD.replace(b"Hi", b"caf\xe9"), GOOD]
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines))
    (tmp_path / "p.json").write_bytes(b"\xef\xbb\xbf [" + b",\n".join(lines) + b"]")
    (tmp_path / "p.csv").write_bytes(b"prompt,chosen,rejected\nHi,a,b\ncaf\xe9,a,b\nHi,a,b\n")
    for name in ("p.jsonl", "p.json", "p.csv"):
        found = list(read_pairs(tmp_path / name))
        assert [isinstance(row, Failure) for row in found] == [False, True, False], name


def test_csv_cells_may_hold_line_breaks(tmp_path: Path) -> None:
    with open(tmp_path / "p.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerow(ROW | {"chosen": "a\nb, c"})
    assert read(tmp_path / "p.csv") == ([ROW | {"chosen": "a\nb, c"}], [])


def test_rows_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b"[" + GOOD + b"," + b" " * 10_000_000)  # an array that never ends
    coming = files.rows(path)
    assert next(coming) == ("p.json[1]", ROW)
