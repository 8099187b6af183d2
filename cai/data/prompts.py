"""Read prompts: JSONL, JSON, CSV, parquet, a `datasets` folder or a hub id; one at a time, bad rows become failures.

A row gives `prompt` (text) or `messages` (role and content, ending in a user turn), and may give `id`, `tags` and
`split`. An id that is not given is derived from the conversation, so that it survives reordering.

Left out on purpose: guessing the column. A row with neither column is a failure that names the columns it has.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from cai.core import plugins
from cai.core.errors import Mistake
from cai.core.seeds import digest, file_digest
from cai.core.types import Failure, Message, Prompt
from cai.data import files
from cai.data.files import SUFFIXES, Row, UnreadableRow
from cai.data.messages import parse_messages, parse_text
from cai.runs.recipe import PromptSource

MAX_TEXT = 1 << 20
"""Characters of one conversation."""
STAGE = "read"


def read_prompts(source: PromptSource) -> Iterator[Prompt | Failure]:
    """The prompts of a source in its order; duplicates and bad rows are Failures. Raises Mistake for a bad source."""
    return _unique(_parsed(islice(_rows(source), source.limit), source.column))


def locate_prompts(source: PromptSource) -> Path | None:
    """The file or folder a source means, None for a hub id. Raises Mistake for a path that does not exist."""
    path = Path(source.path)
    if path.exists():
        files.check_regular(path)
        return path
    name = source.path.removesuffix(".jsonl") + ".jsonl"
    for candidate in (Path("prompts", name), plugins.shipped("prompts", name)):
        if candidate.is_file():
            return candidate
    if path.suffix in SUFFIXES or path.is_absolute() or source.path.count("/") != 1:
        raise Mistake(f"prompts: {source.path}", "there is no such file", "check the path")
    return None


def prompts_digest(source: PromptSource) -> str:
    """SHA-256 of the source's bytes, or of its name where it is a folder or on the hub."""
    path = locate_prompts(source)
    if path is None or path.is_dir():
        return digest(source.path, source.split)
    return file_digest(path)


def count_prompts(source: PromptSource) -> int | None:
    """How many rows `read_prompts` will read, where that is known without parsing them: for the progress line."""
    path = locate_prompts(source)
    known = files.count_rows(path) if path is not None else None
    return known if source.limit is None else min(known or source.limit, source.limit)


def _rows(source: PromptSource) -> Iterator[Row]:
    path = locate_prompts(source)
    if path is None or path.is_dir():
        return _datasets_rows(source, path)
    return files.rows(path)


def _datasets_rows(source: PromptSource, path: Path | None) -> Iterator[Row]:
    import datasets

    try:
        if path is not None and (path / "dataset_info.json").exists():
            listed: Iterable[Any] = datasets.load_from_disk(str(path))
        elif path is not None and (path / "dataset_dict.json").exists():
            listed = datasets.load_from_disk(str(path))[source.split]
        else:
            listed = datasets.load_dataset(source.path, split=source.split, streaming=True)
        yield from ((f"{source.path}[{number}]", row) for number, row in enumerate(listed, 1))
    except Exception as error:  # datasets raises whatever its readers raise; each means this source cannot be read
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Mistake(f"prompts: {source.path}", f"cannot be loaded: {what}", "check the name and the split") from error


def _parsed(rows: Iterable[Row], column: str) -> Iterator[Prompt | Failure]:
    for where, row in rows:
        try:
            if isinstance(row, UnreadableRow):
                raise ValueError(str(row))
            yield _prompt(row, column)
        except ValueError as error:
            yield Failure(where, STAGE, "bad_row", f"{where} {error}")


def _prompt(row: object, column: str) -> Prompt:
    if not isinstance(row, Mapping):
        raise ValueError(f"is a {type(row).__name__}, not an object with {column!r} or 'messages'")
    messages = _messages(row, column)
    if sum(len(message.content) for message in messages) > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT:,} characters")
    id = row.get("id")
    return Prompt(
        id=_id(id) if id not in (None, "") else _derived(messages),
        messages=messages,
        tags=_tags(row.get("tags")),
        split=parse_text(row["split"], "split") if row.get("split") else None,
    )


def _messages(row: Mapping[str, Any], column: str) -> tuple[Message, ...]:
    listed = row.get("messages")
    if isinstance(listed, str) and listed.lstrip().startswith("["):
        listed = _cell(listed)
    if listed is None and isinstance(row.get(column), list):
        listed = row[column]  # TRL's conversational prompt
    if listed is None:
        if row.get(column) in (None, ""):
            names = ", ".join(map(repr, list(row)[:8])) or "nothing"
            raise ValueError(f"has no {column!r} and no 'messages'; it has {names}")
        return (Message("user", _nonempty(parse_text(row[column], column), column)),)
    if not isinstance(listed, list | Mapping) or not listed:
        raise ValueError("'messages' is not a list of turns")
    messages = parse_messages(listed)
    for number, message in enumerate(messages, 1):
        _nonempty(message.content, f"turn {number}")
    if not messages:
        raise ValueError("'messages' has no turns")
    if messages[-1].role != "user":
        raise ValueError(f"ends in a {messages[-1].role} turn; a prompt ends in a user turn")
    if any(message.role == "system" for message in messages[1:]):
        raise ValueError("has a system turn that is not the first")
    return messages


def _cell(text: str) -> object:
    """The messages in a CSV cell."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("'messages' is nested too deeply") from None


def _nonempty(text: str, what: str) -> str:
    if not text.strip():
        raise ValueError(f"{what} is empty")
    return text


def _id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"id is a {type(value).__name__}, not text or a whole number")
    text = parse_text(str(value), "id")
    if len(text) > 200 or not text.isprintable():
        raise ValueError("id is longer than 200 characters or has control characters")
    return text


def _tags(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(tag.strip() for tag in value.split(",") if tag.strip())
    if not isinstance(value, list):
        raise ValueError(f"tags is a {type(value).__name__}, not a list")
    return tuple(parse_text(tag, "tags") for tag in value)


def _derived(messages: tuple[Message, ...]) -> str:
    return digest([(message.role, message.content) for message in messages])[:16]


def _unique(prompts: Iterable[Prompt | Failure]) -> Iterator[Prompt | Failure]:
    conversations, ids = _Seen(), _Seen()
    for prompt in prompts:
        if isinstance(prompt, Failure):
            yield prompt
            continue
        conversation, name = _number(prompt.messages), _number(prompt.id)
        if conversation in conversations:
            yield Failure(prompt.id, STAGE, "duplicate", "the same conversation came before in this source")
        elif name in ids:
            yield Failure(prompt.id, STAGE, "duplicate_id", "the same id came before with another conversation")
        else:
            conversations.add(conversation)
            ids.add(name)
            yield prompt


def _number(value: object) -> int:
    """64 bits of its hash, enough to distinguish a million values; never 0."""
    return hash(value) & 0xFFFF_FFFF_FFFF_FFFF or 1


class _Seen:
    """A set of numbers in 16 to 32 bytes each, where `set` takes 80."""

    def __init__(self) -> None:
        self._table, self._count = array("Q", bytes(8 << 10)), 0  # 0 is an empty slot

    def __contains__(self, number: int) -> bool:
        return bool(self._table[self._slot(number)])

    def add(self, number: int) -> None:
        """Add a number; one that is there already changes nothing."""
        place = self._slot(number)
        self._count += not self._table[place]
        self._table[place] = number
        if 2 * self._count > len(self._table):
            old, self._table = self._table, array("Q", bytes(16 * len(self._table)))
            for number in filter(None, old):
                self._table[self._slot(number)] = number

    def _slot(self, number: int) -> int:
        """Its index in the table, or that of the empty slot where it belongs."""
        table, last = self._table, len(self._table) - 1
        place = number & last
        while table[place] not in (0, number):
            place = (place + 1) & last
        return place
