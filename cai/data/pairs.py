"""Preference pairs from a file in any known format: every row becomes a Preference, or a Failure with a reason.

The format is detected from the first rows and kept for the whole file, so that a row in another format is noticed.
PAIR_FORMATS names the known ones.

Left out on purpose: repairing rows. They are read as a trainer would read them; `cai check` reports what is wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from cai.core.errors import Mistake
from cai.core.plugins import suggest
from cai.core.types import Failure, Message
from cai.data import pair_formats
from cai.data.files import MAX_ROW, SUFFIXES, Row, UnreadableRow, rows, suffix
from cai.data.pair_formats import (
    PAIR_FORMATS,
    BadLabel,
    Sides,
    describe_columns,
    detect_format,
    finite_number,
    first_text,
    joined_turns,
    probability,
)

STAGE = "read"
BAD_LABEL = "bad_label"
"""The kind of a Failure whose row has a `p_chosen` or a `weight` that cannot be one."""
PEEK = 50
"""Rows that the format is detected from."""
_NOT_ROWS = frozenset({"manifest.json", "dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json"})
_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, one of them preferred, as a file has it."""

    id: str
    """The row's own id, or its place in the file."""
    where: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    p_chosen: float | None = None
    """Probability that `chosen` is the better one; None where the row has none."""
    scores: tuple[float, float] | None = None
    """The score of each answer, chosen first."""
    margin: float | None = None
    """By how much `chosen` is better, in the file's own unit."""
    weight: float | None = None
    """How much the row counts in training; None where the row has none."""
    category: str | None = None
    split: str = "train"
    turns: int = 1
    """Turns of the longer side after the shared prompt; more than 1 where the sides differ before the last answer."""

    @property
    def tie(self) -> bool:
        """Whether neither answer is the better one."""
        return self.p_chosen == 0.5


@dataclass(frozen=True, slots=True)
class PairFile:
    """A file of pairs: its split, its format, and its rows, which can be iterated once."""

    path: Path
    split: str
    format: str
    """A name in PAIR_FORMATS; empty where the first rows are in no known format."""
    pairs: Iterator[Preference | Failure]


def read_pairs(path: Path, format: str = "") -> Iterator[Preference | Failure]:
    """Every pair of a file, or of the files of a folder. Raises Mistake for a file that cannot be opened."""
    for file in data_files(path):
        yield from open_pairs(file, format).pairs


def data_files(path: Path) -> list[Path]:
    """The data files that a path means: itself, those of a folder, or the pairs of a run. Raises Mistake."""
    if not path.is_dir():
        return [path]
    if (path / "manifest.json").exists() and (path / "pairs.jsonl").exists():
        return [path / "pairs.jsonl"]
    inside = sorted(file for pattern in ("*", "*/*") for file in path.glob(pattern))
    found = [file for file in inside if suffix(file) in SUFFIXES and file.name.lower() not in _NOT_ROWS]
    if not found:
        raise Mistake(str(path), "holds no data files", f"name a folder with files of {', '.join(SUFFIXES)}")
    return found


def open_pairs(path: Path, format: str = "", split: str = "") -> PairFile:
    """A file of pairs; its format and its split are detected where they are not given. Raises Mistake."""
    if format and format not in PAIR_FORMATS:
        raise Mistake(f"format {format}", "there is no such format", suggest(format, list(PAIR_FORMATS)))
    rest = rows(path)
    first = list(islice(rest, PEEK))
    name = format or detect_format([value for _, value in first])
    split = split or _split(path)
    return PairFile(path, split, name, (_pair(row, name, split) for row in chain(first, rest)))


def split_names(paths: Sequence[Path]) -> list[str]:
    """The split of each file: its name, after that of its folder where several files have the same name."""
    names = [(_split(path), path.name) for path in paths]
    counts = Counter(names)
    folders = [f"{path.parent.name}/" if counts[name] > 1 else "" for path, name in zip(paths, names, strict=True)]
    return [folder + name for folder, (name, _) in zip(folders, names, strict=True)]


def _split(path: Path) -> str:
    """`train` for `train-00000-of-00002.parquet`, and for `train/data-00000-of-00001.arrow`."""
    stem = _SHARD.sub("", path.name.split(".")[0])
    return path.parent.name if stem == "data" else stem


def _pair(row: Row, format: str, split: str) -> Preference | Failure:
    where, value = row
    try:
        if isinstance(value, UnreadableRow):
            raise ValueError(str(value))
        if not format:
            raise ValueError(f"is in no format that is known; it {describe_columns(value)}")
        return _preference(where, PAIR_FORMATS[format].sides(value), split)
    except ValueError as error:
        kind = BAD_LABEL if isinstance(error, BadLabel) else "bad_row"
        return Failure(where, STAGE, kind, f"{where} {error}")


def _preference(where: str, sides: Sides, split: str) -> Preference:
    prompt, chosen, rejected = sides.split_prompt()
    if sum(map(len, (chosen, rejected, *(message.content for message in prompt)))) > MAX_ROW:
        raise ValueError(f"is longer than {MAX_ROW:,} characters")
    row = sides.row
    return Preference(
        id=first_text(row, "id", "prompt_id") or where,
        where=where,
        prompt=prompt,
        chosen=joined_turns(chosen),
        rejected=joined_turns(rejected),
        p_chosen=sides.p_chosen if sides.p_chosen is not None else probability(row),
        scores=(scores := pair_formats.scores(row)),
        margin=finite_number(row.get("margin")) if scores is None else scores[0] - scores[1],
        weight=pair_formats.weight(row),
        category=first_text(row, "category"),
        split=first_text(row, "split") or split,
        turns=max(len(chosen), len(rejected)),
    )
