"""The tokens that an answer reports, where they can be believed, and the estimate where they cannot.

A count is believed if it is a whole number, not negative, and not above what the request's size and limit allow. An
estimate is one token for every four bytes of UTF-8, which is close for English and for Chinese.
"""

from __future__ import annotations

from cai.core.types import Usage

SLACK = 100_000
"""Tokens by which a count may pass the bytes of the request, or its limit: a gateway's own texts, and reasoning."""
BYTES_A_TOKEN = 4
_READ = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Anthropic counts apart what is written to a cache and read from it."""


def reported_usage(answer: object, size: int, max_tokens: int) -> Usage | None:
    """What an answer to a request of `size` bytes says that it used; None where it says nothing to be believed."""
    found = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return None
    prompt, written = found.get("prompt_tokens"), found.get("completion_tokens")
    if type(prompt) is int and type(written) is int:  # as nearly always, which is worth no list
        sane = 0 < prompt <= size + SLACK and 0 <= written <= max_tokens + SLACK
        return Usage(prompt, written) if sane else None
    written = found.get("completion_tokens", found.get("output_tokens"))
    if "prompt_tokens" in found:
        read = [found["prompt_tokens"]]
    else:
        read = [found[name] for name in _READ if found.get(name) is not None]
    counts = [_count(value) for value in (*read, 0 if written is None else written)]
    if not read or None in counts:
        return None
    *parts, completion = (count or 0 for count in counts)
    prompt = sum(parts)
    return Usage(prompt, completion) if 0 < prompt <= size + SLACK and completion <= max_tokens + SLACK else None


def estimated_usage(size: int, text: str) -> Usage:
    """The estimate for a request of `size` bytes and an answer with this text, its reasoning included."""
    written = len(text.encode("utf-8", "surrogatepass"))
    return Usage(size // BYTES_A_TOKEN + 1, -(-written // BYTES_A_TOKEN), estimated=True)


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 << 53:
        return None
    return int(value) if value == int(value) else None
