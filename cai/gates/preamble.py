"""Gate: the text begins with a line that announces a revision. It can be repaired: the line is removed."""

from __future__ import annotations

import re

from cai.core.plugin_types import Gate, GateInput

HEAD = 400
"""Characters at the start in which a preamble must stand. This also bounds the time that its pattern can take."""
_OPENERS = r"(?:(?:sure|certainly|of course|absolutely|okay|ok|great|no problem|thank you)\b[^\n.!:]{0,40}[!.,:]\s*)?"
_PREAMBLE = re.compile(
    rf"(?:{_OPENERS}(?:here(?:['’]s| is| are)|below is|this is|i(?:['’]ve| have))\b[^\n:]{{0,80}}?"
    r"\b(?:revis\w+|rewrit\w+|rewrote|updated|improved|concise|shorter|brief\w*|edited|simplified|condensed|corrected)\b"
    r"[^\n:]{0,160}:\s*"
    r"|\**(?:the )?(?:revised|rewritten|final|improved|concise|new|updated|shortened)?\s*"
    r"(?:response|answer|revision|version|text|rewrite)\**\s*:\**\s*)",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "«": "»"}


def repaired(text: str) -> tuple[str, str]:
    """`text` without an announcing first line and the quotes it announced; and what was removed, empty if nothing."""
    start = text.lstrip()
    found = _PREAMBLE.match(start[:HEAD])
    if not found or not start[found.end() :].strip():
        return text, ""
    rest = start[found.end() :].strip()
    if len(rest) > 1 and _QUOTES.get(rest[0]) == rest[-1] and rest[0] not in rest[1:-1]:
        rest = rest[1:-1].strip()
    return rest, found[0].strip()


def preamble(seen: GateInput) -> str | None:
    """The announcing first line."""
    return repaired(seen.after)[1] or None


GATE = Gate(
    look=preamble, about="the text begins by announcing a revision", default="repair", repair=repaired, order=60
)
