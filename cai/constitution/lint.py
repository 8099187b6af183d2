"""Check a constitution file and report every problem: its line, what it is, and how to fix it.

An `error` means that the file cannot be used as intended; a `warning` deserves attention.

Left out on purpose: judging whether a principle is a good one; that takes a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails
from rapidfuzz import fuzz, utils

from cai.core.config import Knobs, read_yaml
from cai.core.errors import Mistake
from cai.core.plugins import suggest

MOST = 1000
"""Principles of a constitution."""
ALIKE = 90
"""Similarity in percent from which two principles count as near-duplicates."""

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]


class ExampleForm(Knobs):
    """A worked example, shown to the critic before the answer to criticise."""

    model_config = ConfigDict(use_attribute_docstrings=True, title="Example")
    prompt: Text
    """What the person asked."""
    answer: Text
    """The answer that is criticised."""
    critique: Text
    """A good critique of it."""
    revision: Text = ""
    """The answer after revision. Leave it out where there is nothing to fix."""


class PrincipleForm(Knobs):
    """One rule, in the forms that the stages need."""

    model_config = ConfigDict(use_attribute_docstrings=True, title="Principle")
    id: Slug
    """Its permanent name. Draws and rows refer to it: do not rename it, and never reuse it for another rule."""
    title: Text = ""
    """A few words for tables and pages; no model sees them."""
    critique: Text
    """What the critic is told to look for in an answer."""
    revise: Text
    """What the writer is told to do with the answer."""
    compare: Text = ""
    """The question a judge is asked about two answers. Leave it out and the principle never compares."""
    checks: tuple[Text, ...] = ()
    """Yes/no questions about one answer; yes is good."""
    weight: Annotated[float, Field(ge=0, strict=True)] = 1.0
    """How often it is drawn, relative to the others; 0 switches it off."""
    tags: tuple[Slug, ...] = ()
    """Groups it is counted under; each is declared under the constitution's `tags`."""
    applies_to: tuple[Slug, ...] = ()
    """It is drawn only for prompts with one of these tags; leave it out for every prompt."""
    priority: Annotated[int, Field(strict=True)] = 0
    """Which principle takes precedence where two disagree; higher first. Draws ignore it."""
    examples: tuple[ExampleForm, ...] = ()
    """Worked examples of this principle."""
    rationale: Text = ""
    """Why it is there; no model sees it."""


class ConstitutionForm(Knobs):
    """What a model should be: a named list of principles."""

    model_config = ConfigDict(use_attribute_docstrings=True, title="Constitution")
    name: Text
    version: Text = ""
    """In quotes, or YAML reads a number."""
    about: Text = ""
    """What it is for, in a sentence."""
    tags: tuple[Slug, ...] = ()
    """The tags that principles may use."""
    examples: tuple[ExampleForm, ...] = ()
    """Worked examples shown with every principle, after its own."""
    principles: Annotated[tuple[PrincipleForm, ...], Field(min_length=1, max_length=MOST)]


Level = Literal["error", "warning"]
Place = tuple[str | int, ...]
"""The place of a value in a file: ("principles", 2, "weight")."""
Found = tuple[Level, Place, str, str]
"""A problem before its line is known: how bad, where, what, and the fix."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a constitution file, and what to do about it. Lines count from 1; 0: none is known."""

    file: str
    line: int
    level: Level
    what: str
    fix: str

    @property
    def where(self) -> str:
        """The file, with the line where one is known."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        return f"{self.where}: {self.level}: {self.what}; {self.fix}"


def lint(path: str | Path) -> list[Problem]:
    """Every problem of a constitution file, sorted by line."""
    return check_constitution(path)[1]


def check_constitution(path: str | Path) -> tuple[ConstitutionForm | None, list[Problem]]:
    """The content of a file, None if there is an error in it, and its problems, sorted by line."""
    try:
        document = read_yaml(Path(path))
    except Mistake as mistake:
        line = mistake.where.removeprefix(f"{Path(path)}").removeprefix(":")
        return None, [Problem(str(path), int(line or 0), "error", mistake.what, mistake.fix)]
    form, found = _validated(document.data)
    found += [problem for rule in _RULES for problem in rule(document.data)]
    problems = [Problem(str(path), document.line(place), level, what, fix) for level, place, what, fix in found]
    problems.sort(key=lambda problem: problem.line)
    return (None if any(problem.level == "error" for problem in problems) else form), problems


# --- Types ------------------------------------------------------------------------------------------------------------

_FIXES = {
    "missing": "add it",
    "string_type": "write a text, in quotes if it looks like a number or like true",
    "string_unicode": "write the character itself in place of its \\u code",
    "string_too_long": "write a shorter one",
    "string_pattern_mismatch": "use lower-case letters, digits and hyphens, such as 'no-flattery'",
    "string_too_short": "write it or delete it",
    "too_short": "write at least one",
    "too_long": f"keep at most {MOST}",
    "tuple_type": "write one item a line, each after '- '",
    "model_type": "write a mapping of keys",
    "int_type": "write a whole number",
    "float_type": "write a number",
    "finite_number": "write a finite number",
    "greater_than_equal": "write a number of 0 or more",
}


def _validated(data: dict[str, Any]) -> tuple[ConstitutionForm | None, list[Found]]:
    try:
        return ConstitutionForm.model_validate(data), []
    except ValidationError as error:
        return None, [_typed(data, detail) for detail in error.errors(include_url=False) if not _echo(detail)]


def _echo(detail: ErrorDetails) -> bool:
    """Whether the error is reported elsewhere: keys without a value have a rule, bad items shorten a list."""
    return detail["input"] is None or (detail["type"] == "too_short" and bool(detail["input"]))


def _typed(data: dict[str, Any], detail: ErrorDetails) -> Found:
    place = detail["loc"]
    return "error", place, f"{_owner(data, place)} {_what(detail)}", _fix(detail)


def _owner(data: dict[str, Any], place: Place) -> str:
    """The object that contains `place`, as shown to a person: principle 'honest', example 2."""
    held, names = place[:-1], []
    if len(held) > 1 and held[0] == "principles" and isinstance(held[1], int):
        names.append(f"principle {_name(data['principles'][held[1]], held[1])}")
        held = held[2:]
    if len(held) > 1 and held[0] == "examples" and isinstance(held[1], int):
        names.append(f"example {held[1] + 1}")
    return ", ".join(names) or "the constitution"


def _name(principle: object, at: int) -> str:
    id = principle.get("id") if isinstance(principle, dict) else None
    return repr(id) if isinstance(id, str) else f"number {at + 1}"


def _what(detail: ErrorDetails) -> str:
    *held, last = detail["loc"]
    key = f"{held[-1]!r} item {last + 1}" if isinstance(last, int) else repr(last)
    given = repr(detail["input"])
    given = given if len(given) < 40 else given[:36] + " ..."
    match detail["type"]:
        case "missing":
            return f"has no {key}"
        case "extra_forbidden":
            return f"has an unknown key {key}"
        case "string_too_short" | "too_short":
            return f"has an empty {key}"
        case _:
            return f"has {given} as {key}"


def _fix(detail: ErrorDetails) -> str:
    place = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return suggest(str(place[-1]), list(_form(place).model_fields))
    if detail["type"] == "missing" and _form(place) is PrincipleForm:
        return "add it or delete the principle"
    return _FIXES.get(detail["type"], detail["msg"])


def _form(place: Place) -> type[Knobs]:
    """The form whose key is at `place`."""
    if "examples" in place[:-1]:
        return ExampleForm
    return PrincipleForm if "principles" in place[:-1] else ConstitutionForm


# --- Rules: the data may still have the wrong types, so that one pass finds everything -------------------------------


def _principles(data: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return [(at, one) for at, one in enumerate(_list(data.get("principles"))) if isinstance(one, dict)][:MOST]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _leaves(value: object, place: Place) -> Iterator[tuple[Place, object]]:
    """Everything in `value` that is neither a list nor a mapping, with its place."""
    if not isinstance(value, list | dict):
        yield place, value
    for key, item in value.items() if isinstance(value, dict) else enumerate(_list(value)):
        yield from _leaves(item, (*place, key))


def _empty_values(data: dict[str, Any]) -> Iterator[Found]:
    for place, value in _leaves(data, ()):
        if value is None:
            what = f"{_owner(data, place)} has no value for {place[-1]!r}"
            yield "error", place, what, "fill it in or delete the line"


def _same_ids(data: dict[str, Any]) -> Iterator[Found]:
    seen = set()
    for at, principle in _principles(data):
        id = principle.get("id")
        if isinstance(id, str) and id in seen:
            yield "error", ("principles", at, "id"), f"a second principle has the id {id!r}", "rename this one"
        seen.add(str(id))


_POSITIONAL = re.compile(r"(?:p|no|nr|item|rule|principle)?-?\d+")


def _positional_ids(data: dict[str, Any]) -> Iterator[Found]:
    for at, principle in _principles(data):
        if _POSITIONAL.fullmatch(str(principle.get("id"))):
            what = f"the id {principle['id']!r} only counts, and would mean another principle after a renumbering"
            yield "warning", ("principles", at, "id"), what, "name it by its content, such as 'no-flattery'"


def _unknown_tags(data: dict[str, Any]) -> Iterator[Found]:
    known = [str(tag) for tag in _list(data.get("tags"))]
    for at, principle in _principles(data):
        for key in ("tags", "applies_to"):
            for place, tag in _leaves(_list(principle.get(key)), ("principles", at, key)):
                if tag not in known:
                    fix = suggest(str(tag), known) if known else "declare it under `tags:` at the top"
                    yield "error", place, f"principle {_name(principle, at)} has an unknown tag {tag!r}", fix


def _weightless(data: dict[str, Any]) -> Iterator[Found]:
    weights = [principle.get("weight", 1) for _, principle in _principles(data)]
    if weights and all(weight == 0 and weight is not False for weight in weights):
        what = "every principle has weight 0, so none can be drawn"
        yield "error", ("principles", 0, "weight"), what, "give one of them a weight above 0"


_CODE = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}|<\|\w+\|>")
_PLACEHOLDER = re.compile(_CODE.pattern + r"|\{\w*\}")
_FORMS = ("critique", "revise", "compare")


def _template_code(data: dict[str, Any]) -> Iterator[Found]:
    for at, principle in _principles(data):
        for key in (*_FORMS, "checks"):
            for place, text in _leaves(principle.get(key), ("principles", at, key)):
                if code := _PLACEHOLDER.search(str(text)):
                    what = (
                        f"principle {_name(principle, at)} has {code[0]!r} in {key!r}, which looks like template code"
                    )
                    yield "error", place, what, "nothing is filled in there: say it in words"


def _code_in_examples(data: dict[str, Any]) -> Iterator[Found]:
    for place, text in _leaves(data, ()):
        if "examples" in place and (code := _CODE.search(str(text))):
            what = f"{_owner(data, place)} has {code[0]!r} in {place[-1]!r}, which looks like template code"
            yield "warning", place, what, "replace it, unless the case is about code"


def _near_duplicates(data: dict[str, Any]) -> Iterator[Found]:
    earlier: list[tuple[str, dict[str, str]]] = []
    for at, principle in _principles(data):
        texts = {key: utils.default_process(str(principle[key])) for key in _FORMS if key in principle}
        score, name = max(((_alike(texts, other), name) for name, other in earlier), default=(0.0, ""))
        if score:
            what = f"principle {_name(principle, at)} is nearly principle {name} again ({score:.0f} % alike)"
            yield "warning", ("principles", at), what, "merge them, or say what sets them apart"
        earlier.append((_name(principle, at), texts))


def _alike(one: dict[str, str], other: dict[str, str]) -> float:
    """Similarity in percent of the forms that differ most, 0 if it is below ALIKE."""
    both = [key for key in _FORMS if key in one and key in other]
    return min((fuzz.ratio(one[key], other[key], score_cutoff=ALIKE) for key in both), default=0.0)


def _missing_compare(data: dict[str, Any]) -> Iterator[Found]:
    without = [(at, principle) for at, principle in _principles(data) if "compare" not in principle]
    if len(without) < len(_principles(data)):
        for at, principle in without:
            what = f"principle {_name(principle, at)} has no 'compare', so no judge is asked about it"
            yield "warning", ("principles", at), what, "add the question, as the other principles have it"


def _never_drawn(data: dict[str, Any]) -> Iterator[Found]:
    if _principles(data) and all(principle.get("applies_to") for _, principle in _principles(data)):
        what = "every principle has 'applies_to', so none applies to a prompt without these tags"
        yield "warning", ("principles",), what, "leave it out of at least one principle"


def _cases(data: dict[str, Any]) -> Iterator[tuple[Place, list[Any]]]:
    holders = [((), data), *((("principles", at), one) for at, one in _principles(data))]
    for place, holder in holders:
        if isinstance(holder.get("examples"), list):
            yield (*place, "examples"), holder["examples"]


def _no_cases(data: dict[str, Any]) -> Iterator[Found]:
    for place, cases in _cases(data):
        if not cases:
            yield "warning", place, f"{_owner(data, place)} has no case under 'examples'", "add one or delete the key"


def _idle_revisions(data: dict[str, Any]) -> Iterator[Found]:
    for held, cases in _cases(data):
        for at, case in enumerate(cases):
            if isinstance(case, dict) and case.get("revision", "") == case.get("answer"):
                place = (*held, at, "revision")
                what = f"{_owner(data, place)} has its answer again as 'revision'"
                yield "warning", place, what, "delete 'revision': that says that nothing is to fix"


def _always_at_fault(data: dict[str, Any]) -> Iterator[Found]:
    cases = [case for _, held in _cases(data) for case in held if isinstance(case, dict)]
    if cases and all("revision" in case for case in cases):
        what = "no worked case is free of faults, which teaches a critic to find one always"
        yield "warning", ("principles",), what, "add a case without 'revision'"


_RULES: tuple[Callable[[dict[str, Any]], Iterator[Found]], ...] = (
    _empty_values,
    _same_ids,
    _positional_ids,
    _unknown_tags,
    _weightless,
    _template_code,
    _code_in_examples,
    _near_duplicates,
    _missing_compare,
    _never_drawn,
    _no_cases,
    _idle_revisions,
    _always_at_fault,
)
