"""Gate: the text ends before its end."""

from __future__ import annotations

from cai.core.plugin_types import Gate, GateInput


def truncated(seen: GateInput) -> str | None:
    """What ended the text before its end."""
    return {"length": "cut at max_tokens", "filter": "cut by a content filter"}.get(seen.finish)


GATE = Gate(
    look=truncated, about="the text was cut at max_tokens or by a content filter", on=("draft", "revision"), order=30
)
