"""Gate: the text writes turns of the conversation by itself."""

from __future__ import annotations

import re

from cai.core.plugin_types import Gate, GateInput

SEEN = 20_000
"""Characters of an answer that are looked at."""

_ROLE = re.compile(
    r"^(?:\W{0,3}(?:\d[.)] ?)?(?:human|user|assistant|question|critique|revision|verdict)\s?[:：]"
    r"|(?:#{1,6} |\*\*)(?:critique|verdict|kritik|crítica|批评)\b[*:]{0,3})",
    re.IGNORECASE | re.MULTILINE,
)


def roles(seen: GateInput) -> str | None:
    """The label of a turn that the text writes by itself."""
    if (":" in seen.after or "#" in seen.after) and (found := _ROLE.search(seen.after[:SEEN])):
        return None if _ROLE.search(seen.before) else f"speaks as {found[0].strip()!r}"
    return None


GATE = Gate(look=roles, about="the text speaks as another role", on=("draft", "revision"), default="drop", order=80)
