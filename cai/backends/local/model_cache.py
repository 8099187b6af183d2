"""The cache folder: converted models, and the digests of large files, so that each is computed once.

It is `$CAI_CACHE`, else `$XDG_CACHE_HOME/cai`, else `~/.cache/cai`. Nothing in it is deleted automatically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cai.backends.local.download import sha256
from cai.core.seeds import digest
from cai.core.types import JsonObject

MARKER = "complete.json"
"""Written last into a converted model's folder."""
_RELEVANT = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
_IRRELEVANT = {MARKER, "training_args.bin", "trainer_state.json"}


def cache_folder() -> Path:
    """Where models and the digests of large files are kept between runs."""
    if chosen := os.environ.get("CAI_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cai"


def folder_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the content of each file in `folder` that a model is loaded from. Raises OSError."""
    files = (file for file in folder.iterdir() if file.suffix in _RELEVANT and file.name not in _IRRELEVANT)
    return file_digests(folder, files)


def file_digests(key: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of the content of each of `files`, which have different names; `key` names their cache entry.

    Of the content and not of dates, so that copied weights keep their identity and retrained ones get another. A file
    is read again only if its size, its times or its inode changed: the time of the last change cannot be set back.
    """
    cached = cache_folder() / "digests" / f"{digest(str(key))[:24]}.json"
    known, now = read_cached_json(cached), {file.name: (file, _stamp(file)) for file in sorted(files)}
    digests = {name: _known_digest(known.get(name), stamp) or sha256(file) for name, (file, stamp) in now.items()}
    with suppress(OSError):  # if the cache cannot be written, the digests are computed again next time
        write_cached_json(cached, {name: [stamp, digests[name]] for name, (_, stamp) in now.items()})
    return digests


def _known_digest(entry: Any, stamp: str) -> str:
    match entry:
        case [kept, str(found)] if kept == stamp:
            return found
    return ""


def _stamp(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def read_cached_json(file: Path) -> JsonObject:
    """The JSON object in `file`, empty if there is none or the file is damaged."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_cached_json(file: Path, content: object) -> None:
    """Write `content` whole or not at all. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1), "utf-8")
    part.replace(file)
