"""Configuration files: YAML read safely, validated by a pydantic class, with errors by file and line.

Left out on purpose: YAML tags, anchors and aliases. A recipe or a constitution needs none of them, and each has been
used in attacks by small files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent
from ruamel.yaml.parser import RoundTripParser

from cai.core.errors import Mistake
from cai.core.plugins import suggest
from cai.core.types import JsonObject

Share = Annotated[float, Field(ge=0, le=1)]
MAX_BYTES = 1 << 20
MAX_DEPTH = 20


class Knobs(BaseModel):
    """Base of all classes of options: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Options = TypeVar("Options", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """What is wrong, on which line (1-based; 0 where no line is known), and what to do."""

    line: int
    what: str
    fix: str
    kind: Literal["unknown_key", "missing", "invalid"] = "invalid"


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML mapping as plain JSON-like values, with the line of each of them."""

    where: str
    data: dict[str, Any]
    marked: Any  # ruamel's CommentedMap, used only for line numbers

    def line(self, place: Sequence[str | int]) -> int:
        """The 1-based line of the value at `place`, or of the nearest parent that has one."""
        node, line = self.marked, 1
        for step in place:
            marks = getattr(node, "lc", None)
            try:
                line = (marks.key(step) if isinstance(node, dict) else marks.item(step))[0] + 1 if marks else line
                node = node[step]
            except (KeyError, IndexError, TypeError):
                break
        return line


def read_yaml(path: Path) -> Document:
    """The YAML mapping in `path`. Raises Mistake with file and line."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A small UTF-8 file, with or without a byte order mark. Raises Mistake with file and line."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Mistake(str(path), f"cannot be read: {error.strerror}", "check the path") from None
    if len(raw) > MAX_BYTES:
        raise Mistake(str(path), f"is larger than {MAX_BYTES >> 20} MiB", "split it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Mistake(f"{path}:{line}", "is not UTF-8", "save the file as UTF-8") from None


def parse_yaml(text: str, where: str) -> Document:
    """The YAML mapping in `text`; `where` names it in errors. Raises Mistake."""
    try:
        yaml = YAML(typ="rt", pure=True)
        yaml.Parser = partial(_PlainParser, where=where)
        marked = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error).split("\n")[0]
        raise Mistake(f"{where}:{mark.line + 1 if mark else 1}", f"is not YAML: {problem}", "fix this line") from None
    except (YAMLError, ValueError) as error:
        raise Mistake(where, f"is not YAML: {str(error).splitlines()[0]}", "fix the file") from None
    if not isinstance(marked, dict):
        raise Mistake(f"{where}:1", "has no mapping of `key: value` lines", "see `cai init` for an example")
    return Document(where, _plain(marked), marked)


def validate(document: Document, kind: type[Options]) -> tuple[Options | None, list[ConfigProblem]]:
    """`document` as a `kind`, None where it has problems, and the problems by line."""
    try:
        return kind.model_validate(document.data), []
    except ValidationError as error:
        return None, sorted(_problems(document, kind, error), key=lambda problem: problem.line)


def parse_options(document: Document, kind: type[Options]) -> Options:
    """`document` as a `kind`. Raises Mistake with the first problem and how many more there are."""
    found, problems = validate(document, kind)
    if found is None:
        first, more = problems[0], len(problems) - 1
        what = first.what + (f" (and {more} more)" if more else "")
        raise Mistake(f"{document.where}:{first.line}" if first.line else document.where, what, first.fix)
    return found


class _PlainParser(RoundTripParser):
    """Refuses what no file needs and what can exhaust a reader: anchors, tags, deep nesting."""

    def __init__(self, loader: YAML, where: str) -> None:
        super().__init__(loader)
        self._where, self._depth = where, 0

    def get_event(self) -> Any:
        event = super().get_event()
        where = f"{self._where}:{event.start_mark.line + 1}"
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise Mistake(where, "uses a YAML anchor or alias", "write the value out")
        if isinstance(event, NodeEvent) and getattr(event, "tag", None):
            raise Mistake(where, "uses a YAML tag", "remove the '!...'")
        self._depth += isinstance(event, CollectionStartEvent)
        self._depth -= isinstance(event, CollectionEndEvent)
        if self._depth > MAX_DEPTH:
            raise Mistake(where, f"is nested deeper than {MAX_DEPTH}", "flatten it")
        return event


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)  # ruamel's own scalar classes carry formatting; only the value is kept
    return node if node is None else str(node)


def _problems(document: Document, kind: type[BaseModel], error: ValidationError) -> Iterator[ConfigProblem]:
    for item in error.errors(include_url=False):
        place = _place(document.data, item["loc"])
        name = ".".join(map(str, place))
        match item["type"]:
            case "extra_forbidden":
                known = sorted(_fields_at(kind, item["loc"][:-1]))
                fix = suggest(str(item["loc"][-1]), known)
                yield ConfigProblem(document.line(place), f"unknown key {name!r}", fix, "unknown_key")
            case "missing":
                missing = ".".join(map(str, item["loc"]))
                yield ConfigProblem(document.line(place), f"{missing!r} is missing", "add it", "missing")
            case _:
                got = "" if isinstance(item["input"], (dict, list)) else f", not {item['input']!r:.60}"
                what = item["msg"].removeprefix("Value error, ")
                yield ConfigProblem(document.line(place), f"{name or 'the file'}: {what}{got}", "see docs/recipes.md")


def _place(data: Any, loc: Sequence[str | int]) -> list[str | int]:
    # pydantic puts the names of union members into loc; only steps that exist in the data are places
    place: list[str | int] = []
    for step in loc:
        if (isinstance(data, list) and isinstance(step, int)) or (isinstance(data, dict) and step in data):
            data = data[step]  # type: ignore[index]  # a list's step is an int, as just seen
            place.append(step)
    return place


def _fields_at(kind: Any, loc: Sequence[str | int]) -> set[str]:
    if get_origin(kind) in (Union, UnionType, tuple, list):
        return set().union(*(_fields_at(part, loc) for part in get_args(kind)))
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return set()
    if not loc:
        return {field.alias or name for name, field in kind.model_fields.items()}
    field = kind.model_fields.get(str(loc[0]))
    rest = [part for part in loc[1:] if not isinstance(part, int)]
    return _fields_at(field.annotation, rest) if field else set()


def overridden(data: Mapping[str, object], overrides: Sequence[str], example: str = "max_steps=100") -> JsonObject:
    """A copy of `data` with `a.b=value` overrides set, values read as YAML; the last one applies. Raises Mistake."""
    found: dict[str, Any] = dict(data)
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key.strip():
            raise Mistake(f"-o {override}", "is not of the form key=value", f"for example -o {example}")
        *parents, last = key.strip().split(".")
        inner = found
        for parent in parents:
            below = inner.get(parent)
            if below is not None and not isinstance(below, dict):
                raise Mistake(f"-o {override}", f"{parent!r} is a single value and has no keys", f"set {parent} itself")
            inner[parent] = inner = dict(below or {})
        inner[last] = parse_yaml(f"v: {value}", f"-o {override}").data["v"]
    return found
