"""What changed from one text to another, word by word.

Left out on purpose: changes inside a word and changes of white space alone; readers of revisions look for words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Literal, NamedTuple

from rapidfuzz.distance import Indel

Kind = Literal["same", "gone", "new"]
LIMIT = 100_000_000
"""Words of one text times words of the other; beyond it (10,000 each, 12 MB) the text counts as replaced."""


class Segment(NamedTuple):
    """A piece of text that is unchanged, removed, or added."""

    kind: Kind
    text: str


class _Edit(NamedTuple):
    """Words `a_start:a_end` of the old text against `b_start:b_end` of the new."""

    same: bool
    a_start: int
    a_end: int
    b_start: int
    b_end: int


def word_diff(a: str, b: str) -> list[Segment]:
    """Segments from `a` to `b`: `same` and `new` together are `b`, `same` and `gone` hold the words of `a`."""
    old, new = _words(a), _words(b)
    if len(old) * len(new) > LIMIT:
        edits = [_Edit(False, 0, len(old), 0, len(new))]
    else:
        edits = _without_islands(_edits([word.strip() for word in old], [word.strip() for word in new]))
    return [segment for edit in edits for segment in _segments(edit, old, new) if segment.text]


def _words(text: str) -> list[str]:
    """The words of `text`, each with the white space before it, the last also with what follows."""
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    return [text[start:end] for start, end in pairwise([0, *ends[:-1], len(text)])]


def _edits(old: list[str], new: list[str]) -> list[_Edit]:
    """Alternating runs of unchanged and of changed words."""
    runs = groupby(Indel.opcodes(old, new), key=lambda code: code.tag == "equal")
    edits = []
    for same, codes in runs:
        first, *rest = codes
        last = rest[-1] if rest else first
        edits.append(_Edit(same, first.src_start, last.src_end, first.dest_start, last.dest_end))
    return edits


def _without_islands(edits: list[_Edit]) -> list[_Edit]:
    """Merge an unchanged run that is shorter than the changes on both sides into them: a lone "the" is of no use."""
    kept: list[_Edit] = []
    for index, edit in enumerate(edits):
        island = edit.same and 0 < index < len(edits) - 1 and _is_island(kept[-1], edit, edits[index + 1])
        if kept and (island or not (edit.same or kept[-1].same)):
            edit = _Edit(False, kept[-1].a_start, edit.a_end, kept[-1].b_start, edit.b_end)
            kept.pop()
        kept.append(edit)
    return kept


def _is_island(before: _Edit, edit: _Edit, after: _Edit) -> bool:
    return edit.a_end - edit.a_start < min(_size(before), _size(after))


def _size(edit: _Edit) -> int:
    return max(edit.a_end - edit.a_start, edit.b_end - edit.b_start)


def _segments(edit: _Edit, old: list[str], new: list[str]) -> Iterator[Segment]:
    added = "".join(new[edit.b_start : edit.b_end])
    if edit.same:
        yield Segment("same", added)
        return
    # the new text starts without white space: without a space its first word would join the old one
    gap = " " if edit.b_start == 0 and new[0] else ""
    removed = "".join(old[edit.a_start : edit.a_end])
    yield Segment("gone", removed + gap if removed else "")
    yield Segment("new", added)
