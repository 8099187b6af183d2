"""Checks that the answers of every API go through: a known finish reason, a non-empty text, reasoning split off.

The text itself is not judged: a refusal or a loop is an answer too, and gates look at it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from cai.core.errors import Permanent, Transient
from cai.core.reasoning import split_thinking
from cai.core.types import Completion, Finish, JsonObject, Usage

_ENDS: dict[str | None, Finish] = {
    None: "stop",
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
}
SLACK = 0.01
"""How far above 0 a log-probability may be because of rounding."""
_FILTERED = ("content_filter", "refusal", "safety")
"""`refusal` is Anthropic's: its classifier stopped the model; the model did not decline by itself."""


def completion(
    text: str, thought: str, end: str | None, usage: Usage, logprobs: Sequence[float] | None = None
) -> Completion:
    """The answer in these parts. Raises Permanent if a filter ended it, Transient if it is empty without a reason."""
    if end in _FILTERED:
        raise Permanent("content_filter", f"the endpoint's content filter ended the answer ({end})")
    if end not in _ENDS:
        raise Permanent("unusable", f"the answer has the finish reason {end!r}, which is none of text")
    if "<" in text:
        text, tagged = split_thinking(text)
        thought = "\n\n".join(filter(None, (thought, tagged)))
    finish = _ENDS[end]
    if finish == "stop" and not thought and not text.strip():
        raise Transient("empty", "the answer has no text and gives no reason")
    return Completion(
        text, thought.strip() or None, finish, usage, None if logprobs is None else valid_logprobs(logprobs)
    )


def joined_text(parts: str | Sequence[JsonObject] | None, kind: str) -> str:
    """The text in an answer's content: a string, or a list of parts from which those of `kind` are taken."""
    if parts is None or isinstance(parts, str):
        return parts or ""
    return "".join(joined_text(part[kind], "text") for part in parts if part["type"] == kind)


def token_count(value: float | None) -> int:
    """A number of tokens; 0 if the endpoint does not say."""
    return int(value) if value else 0


def valid_logprobs(values: Sequence[float]) -> tuple[float, ...]:
    """Log-probabilities as floats. Raises ValueError for a value that is not a number, infinite or above 0."""
    found = tuple(float(value) for value in values)
    if not all(isfinite(value) and value <= SLACK for value in found):
        raise ValueError("a log-probability is infinite, not a number, or above 0")
    return found
