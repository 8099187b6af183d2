"""The secret that fence ids are made with, created once beside the journal, so that no id can be computed beforehand.

Whoever writes a prompt knows its id, and could compute a fence id that depends on nothing else and close the fence from
inside. The same secret gives the same ids, so that the journal's answers are found again; machines that are to agree
are given a copy of the file, or its content in the environment. It is written nowhere else.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cai.core.errors import Mistake
from cai.runs.files import atomic
from cai.runs.lock import Lock

VARIABLE = "CAI_FENCE_SECRET"
"""Where this is set, its value counts, and no file is read or written."""
_SECRET = re.compile(r"[0-9a-fA-F]{64}")


def fence_secret(journal: Path, note: Callable[[str], None] = lambda text: None) -> bytes:
    """The 32 bytes that belong to a journal: those of the environment, else of `NAME.secret` beside it, else new ones.

    `note` takes a line where a new secret makes answers in the journal useless. Raises Mistake.
    """
    if given := os.environ.get(VARIABLE):
        return _read(given, VARIABLE, "set it to the content of a journal.secret, or unset it")
    path = journal.with_suffix(".secret")
    if (found := _stored(path)) is not None:
        return found
    try:
        with Lock(journal.with_suffix(".lock")):  # of two processes that start together, one makes it
            if (found := _stored(path)) is not None:
                return found
            made = _created(path)
    except OSError as error:
        raise Mistake(str(path), f"cannot be written: {error.strerror}", "free space, or another folder") from error
    if _answered(journal):
        note(f"{path} was missing and is new: earlier answers to questions with fenced text will be asked again")
    return made


def _stored(path: Path) -> bytes | None:
    try:
        text = path.read_bytes().decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Mistake(str(path), f"cannot be read: {error.strerror}", "make it readable for you") from error
    return _read(text, str(path), "copy it again, or delete it: questions with fenced text are then asked again")


def _read(text: str, where: str, fix: str) -> bytes:
    if not _SECRET.fullmatch(text.strip()):
        raise Mistake(where, "is not a secret of 64 hexadecimal digits", fix)
    return bytes.fromhex(text.strip())


def _created(path: Path) -> bytes:
    made = secrets.token_bytes(32)
    with atomic(path) as file:
        os.chmod(file.name, 0o600)  # before anything is in it
        file.write(made.hex().encode() + b"\n")
    return made


def _answered(journal: Path) -> bool:
    """Whether the journal holds any answer."""
    try:
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            return connection.execute("SELECT 1 FROM answers LIMIT 1").fetchone() is not None
    except sqlite3.Error:  # no journal yet, or one that its own reader will complain about
        return False
