"""Gate: the text still has marks of reasoning, of a turn or of a template's fence."""

from __future__ import annotations

from cai.core.plugin_types import Gate, GateInput
from cai.core.reasoning import leftover_mark


def marks(seen: GateInput) -> str | None:
    """The first mark that neither the prompt nor the earlier answer has."""
    found = leftover_mark(seen.after)
    if not found or found in seen.before or any(found in message.content for message in seen.prompt.messages):
        return None
    return f"{found[:60]!r} is left in the text"


GATE = Gate(
    look=marks, about="marks of reasoning or turns are left", on=("draft", "revision"), default="drop", order=55
)
