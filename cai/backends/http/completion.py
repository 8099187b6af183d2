"""What every API's answer must pass before it counts as one: a known end, text that is there, reasoning split off.

Left out on purpose: judging the text. A refusal or a loop is an answer; gates look at it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from cai.core.errors import Permanent, Transient
from cai.core.reasoning import split_thinking
from cai.core.types import Completion, Finish, Usage

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
"""How far above 0 a log-probability may come by rounding."""
_FILTERED = ("content_filter", "refusal", "safety")
"""`refusal` is Anthropic's: its classifier stopped the model, which did not decline by itself."""


def completion(
    text: str, thought: str, end: str | None, usage: Usage, logprobs: Sequence[Any] | None = None
) -> Completion:
    """The answer in these parts. Raises Permanent where a filter ended it, Transient where it is empty unexplained."""
    if end in _FILTERED:
        raise Permanent("content_filter", f"the endpoint's content filter ended the answer ({end})")
    if end not in _ENDS:
        raise Permanent("unusable", f"the answer ended in {end!r}, which a critique has no use for")
    if "<" in text:
        text, tagged = split_thinking(text)
        thought = "\n\n".join(filter(None, (thought, tagged)))
    finish = _ENDS[end]
    if finish == "stop" and not thought and not text.strip():
        raise Transient("empty", "the answer has no text, and does not say why")
    return Completion(
        text, thought.strip() or None, finish, usage, None if logprobs is None else valid_logprobs(logprobs)
    )


def joined_text(parts: Any, kind: str) -> str:
    """The text in an answer's content: a string, or a list of parts of which those of `kind` count."""
    if parts is None or isinstance(parts, str):
        return parts or ""
    return "".join(joined_text(part[kind], "text") for part in parts if part["type"] == kind)


def token_count(value: Any) -> int:
    """A number of tokens; 0 where the endpoint does not say."""
    return int(value) if value else 0


def valid_logprobs(values: Sequence[Any]) -> tuple[float, ...]:
    """Log-probabilities. Raises ValueError for what is none: no number, infinite, or of more than certainty."""
    found = tuple(float(value) for value in values)
    if not all(isfinite(value) and value <= SLACK for value in found):
        raise ValueError("a log-probability that is none")
    return found
