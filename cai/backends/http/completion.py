"""Checks that the answers of every API go through: why it ended, a non-empty text, reasoning split off.

The text itself is not judged: a refusal or a loop is an answer too, and gates look at it later.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from math import isfinite

from cai.core.errors import Permanent, Transient
from cai.core.reasoning import split_thinking
from cai.core.types import Completion, Finish, JsonObject, Usage

log = logging.getLogger("cai")

_ENDS: dict[str, Finish] = {
    **dict.fromkeys(
        ("", "none", "null", "stop", "eos", "eos_token", "eot", "stop_sequence", "end_turn", "end"), "stop"
    ),
    **dict.fromkeys(("complete", "completed", "finished", "finish", "done", "success", "normal", "ok"), "stop"),
    **dict.fromkeys(("stop_token", "end_of_turn", "endoftext", "finish_reason_stop", "natural"), "stop"),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call", "pause_turn"), "stop"),
    **dict.fromkeys(
        ("length", "max_tokens", "max_length", "model_length", "max_output_tokens", "token_limit"), "length"
    ),
    **dict.fromkeys(
        ("model_context_window_exceeded", "max_new_tokens", "finish_reason_length", "incomplete"), "length"
    ),
}
"""A finish reason in lower case -> what it means. No tools are offered: beside a text, a call of one is its end."""
_FILTERED = (
    "content_filter", "refusal", "safety", "sensitive", "blocklist", "prohibited_content", "spii", "recitation",
    "guardrail_intervened", "content_filtered", "moderation", "flagged", "error_toxic", "blocked", "image_safety",
)  # fmt: skip
"""`refusal` is Anthropic's: its classifier stopped the model; the model did not decline by itself."""
_TROUBLE = (
    "error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "network_error", "timeout",
    "internal_error", "server_error", "overloaded", "unavailable", "preempted", "interrupted", "failed",
)  # fmt: skip
"""Passing trouble of the server's: the text is not whole, and another try may give one."""
SLACK = 0.01
"""How far above 0 a log-probability may be because of rounding."""


def completion(
    text: str, thought: str, end: object, usage: Usage, logprobs: Sequence[float] | None = None
) -> Completion:
    """The answer in these parts. Raises Permanent if a filter ended it or it is a tool call, Transient for trouble."""
    reason = end if end in ("stop", "length") else _reason(end)
    if reason in _FILTERED:
        raise Permanent("content_filter", f"the endpoint's content filter ended the answer ({reason})")
    if reason in _TROUBLE:
        kind = "overloaded" if reason in ("insufficient_system_resource", "overloaded") else "server_error"
        raise Transient(kind, f"the endpoint broke the answer off ({reason})")
    text, marked = split_thinking(text)
    if marked:
        thought = "\n\n".join(filter(None, (thought, marked)))
    finish = _ENDS.get(str(reason), "unknown")
    if not thought and not text.strip():
        if "tool" in str(reason) or "function" in str(reason):
            raise Permanent("unusable", f"the answer is a tool call and no text ({reason})")
        if finish != "length":
            raise Transient("empty", "the answer has no text and gives no reason")
    if finish == "unknown":
        _note_unknown(str(reason))
    return Completion(
        text, thought.strip() or None, finish, usage, None if logprobs is None else valid_logprobs(logprobs)
    )


def _reason(end: object) -> str:
    """A finish reason in lower case: a word, nothing at all, or an object that has it as its `type`."""
    if isinstance(end, dict):
        end = end.get("type") or end.get("reason")
    return "" if end is None else str(end).strip().lower().replace("-", "_").replace(" ", "_")[:60]


@cache
def _note_unknown(reason: str) -> None:
    log.warning("the finish reason %r is not known: such answers are taken for whole, and tagged", reason)


def joined_text(parts: str | Sequence[JsonObject] | None, kind: str) -> str:
    """The text in an answer's content: a string, or a list of parts from which those of `kind` are taken."""
    if parts is None or isinstance(parts, str):
        return parts or ""
    return "".join(joined_text(part[kind], "text") for part in parts if part["type"] == kind)


def valid_logprobs(values: Sequence[float]) -> tuple[float, ...]:
    """Log-probabilities as floats. Raises ValueError for a value that is not a number, infinite or above 0."""
    found = tuple(float(value) for value in values)
    if not all(isfinite(value) and value <= SLACK for value in found):
        raise ValueError("a log-probability is infinite, not a number, or above 0")
    return found
