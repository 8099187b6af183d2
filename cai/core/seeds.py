"""Digests, random seeds and random draws, all from content: one SHA-256.

Left out on purpose: counters and global random state. Resuming, reordering and batching must not change a draw,
so every seed is a function of what it is for.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from pydantic_core import to_json

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def digest(*parts: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `parts`; parts are JSON values."""
    return hashlib.sha256(_canonical(parts)).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def seed(*parts: object) -> int:
    """A seed in [0, 2**31) from `parts`; 31 bits because some endpoints store it as a signed 32-bit integer."""
    return _seed(digest(*parts))


def nonce(secret: bytes, *parts: object) -> str:
    """Ten hex digits from `parts` that only who knows the secret can compute."""
    return _nonce(secret, digest(*parts))


def seed_and_nonce(secret: bytes, *parts: object) -> tuple[int, str]:
    """`seed(*parts)` and `nonce(secret, *parts)`."""
    found = digest(*parts)
    return _seed(found), _nonce(secret, found)


def _seed(found: str) -> int:
    return int(found[:8], 16) & 0x7FFFFFFF


def _nonce(secret: bytes, found: str) -> str:
    return hashlib.blake2b(found.encode(), digest_size=5, key=secret).hexdigest()


def uniform(*parts: object) -> float:
    """A number in the open interval (0, 1) from `parts`, with 52 bits of resolution."""
    return (int(digest(*parts)[:13], 16) + 0.5) / 2**52


def uniforms(parts: tuple[object, ...], names: Iterable[str]) -> list[float]:
    """`uniform(*parts, name)` for each name, with the shared parts hashed once."""
    copy = hashlib.sha256(_canonical(parts)[:-1] + b",").copy
    numbers = list[float]()
    for name in names:
        each = copy()
        each.update(_last(name))
        numbers.append(((_first(each.digest())[0] >> 12) + 0.5) / 2**52)
    return numbers


_first = struct.Struct(">Q24x").unpack
"""The first 64 bits of a digest as a number."""


@lru_cache(4096)
def _last(name: str) -> bytes:
    return _canonical((name,))[1:]


def _canonical(parts: tuple[object, ...]) -> bytes:
    if not _plain(parts):
        return _encoded(parts)
    try:
        return to_json(parts)  # the same bytes, in a fifth of the time
    except ValueError:  # half a surrogate pair must still have a digest, and pydantic makes no JSON of it
        return _encoded(parts)


def _encoded(parts: tuple[object, ...]) -> bytes:
    return _encode(parts).encode("utf-8", "surrogatepass")


def _plain(parts: Sequence[object]) -> bool:
    return _PLAIN.issuperset(map(type, parts)) or all(
        type(part) in _PLAIN or (isinstance(part, (list, tuple)) and _plain(part)) for part in parts
    )


_PLAIN = frozenset({str, int})
