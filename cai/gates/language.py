"""Gate: the revision is in another language than the answer."""

from __future__ import annotations

from cai.core.language import language
from cai.core.plugin_types import Gate, GateInput


def other_language(seen: GateInput) -> str | None:
    """From which language to which."""
    after = language(seen.after)
    before = language(seen.before) if after else None
    return f"from {before} to {after}" if before and before != after else None


GATE = Gate(look=other_language, about="the revision is in another language", default="drop", order=90)
