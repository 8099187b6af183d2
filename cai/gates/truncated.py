"""Gate: the text ends before its end, or for a reason that is not known."""

from __future__ import annotations

from cai.core.plugin_types import Gate, GateInput

_ENDS = {
    "length": "cut at max_tokens",
    "filter": "cut by a content filter",
    "unknown": "ended for a reason that is not known",
}


def truncated(seen: GateInput) -> str | None:
    """What ended the text before its end, or may have."""
    return _ENDS.get(seen.finish)


GATE = Gate(
    look=truncated, about="the text was cut, or ended for an unknown reason", on=("draft", "revision"), order=30
)
