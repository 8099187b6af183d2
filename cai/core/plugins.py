"""Find an extension by its name: the file name is the registration.

A workshop is a folder of `cai` whose public files each end in one record (`backends/scripted.py` ends in BACKEND).
Listing a workshop reads the folder and imports nothing. A package outside is named `pkg.module:ATTR`.

Left out on purpose: entry points and registries; built-ins enjoy no privilege that a named module does not have.
"""

from __future__ import annotations

import importlib
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from cai.core.errors import Mistake

Record = TypeVar("Record")
PACKAGE = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def names(workshop: str) -> list[str]:
    """The names in a workshop such as `backends`, sorted; files that start with _ are private."""
    return sorted(file.stem for file in (PACKAGE / workshop).glob("*.py") if not file.stem.startswith("_"))


def find(workshop: str, name: str, record: type[Record]) -> Record:
    """The record called `name` in a workshop, or `pkg.module:ATTR` outside. Raises Mistake."""
    if _OUTSIDE.fullmatch(name):
        found = load(name)
    elif name in names(workshop):
        found = load(f"cai.{workshop}.{name}:{record.__name__.upper()}")
    else:
        raise Mistake(name, f"there is no {name!r} in {workshop}", suggest(name, names(workshop)))
    if not isinstance(found, record):
        raise Mistake(name, f"is not a {record.__name__} record", "see docs/extending.md")
    return found


def load(name: str) -> object:
    """Whatever `pkg.module:ATTR` names. Raises Mistake."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise Mistake(name, str(error), "install it, or run from the folder that holds it") from error


def suggest(word: str, known: list[str]) -> str:
    """`did you mean 'x'?` when a known word is near, else the whole list."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"


def shipped(*path: str) -> Path:
    """A data file or folder that travels with the package: in a wheel under `_shipped`, in a checkout at the top."""
    inside = PACKAGE / "_shipped"
    return (inside if inside.is_dir() else PACKAGE.parent).joinpath(*path)
