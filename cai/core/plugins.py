"""Find a plug-in by its name: the file name is the registration.

A plug-in folder is a folder of `cai` whose files each end in one record (`backends/scripted.py` ends in BACKEND).
Listing a folder imports nothing. A plug-in of another package is named `pkg.module:ATTR`, with no less privilege.

Code that a person named is imported from the installed packages, else from the working folder, and only when it is run:
within `without_code` such a name raises NotLoaded.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from cai.core.errors import Mistake

Record = TypeVar("Record")
PACKAGE = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_skipped: ContextVar[list[str] | None] = ContextVar("skipped", default=None)


class NotLoaded(Mistake):
    """Code from outside `cai` that was not loaded, because the command promises to run none."""


@contextmanager
def without_code() -> Iterator[list[str]]:
    """Load no code from outside `cai` meanwhile; the names that would have been loaded, each once."""
    names: list[str] = []
    token = _skipped.set(names)
    try:
        yield names
    finally:
        _skipped.reset(token)


def not_loaded() -> tuple[str, ...]:
    """The names that the innermost `without_code` has not loaded so far."""
    return tuple(_skipped.get() or ())


def is_outside(name: str) -> bool:
    """Whether a name means code of another package: `pkg.module:ATTR`."""
    return _OUTSIDE.fullmatch(name) is not None


def plugin_names(folder: str) -> list[str]:
    """The plug-ins in a folder such as `backends`, sorted."""
    return sorted(file.stem for file in (PACKAGE / folder).glob("*.py") if not file.stem.startswith("_"))


def find_plugin(folder: str, name: str, record: type[Record]) -> Record:
    """The record called `name` in a plug-in folder, or `pkg.module:ATTR` outside. Raises Mistake."""
    if is_outside(name):
        found = load_attribute(name)
    elif name in plugin_names(folder):
        found = getattr(importlib.import_module(f"cai.{folder}.{name}"), record.__name__.upper())
    else:
        raise Mistake(name, f"there is no {name!r} in {folder}", suggest(name, plugin_names(folder)))
    if not isinstance(found, record):
        raise Mistake(name, f"is not a {record.__name__} record", "see docs/extending.md")
    return found


def load_attribute(name: str) -> object:
    """Whatever `pkg.module:ATTR` names. Raises Mistake."""
    if (names := _skipped.get()) is not None:
        if name not in names:
            names.append(name)
        raise NotLoaded(name, "was not loaded", "it is loaded when the recipe is run")
    module, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that no file there replaces an installed module
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
