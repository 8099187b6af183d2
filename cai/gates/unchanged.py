"""Gate: the revision equals the answer."""

from __future__ import annotations

from cai.core.plugin_types import Gate, GateInput


def unchanged(seen: GateInput) -> str | None:
    """Whether the revision has the same words as the answer that it would replace."""
    return "the revision equals the answer" if same_words(seen.after, seen.before) else None


def same_words(a: str, b: str) -> bool:
    """Whether the texts have the same words."""
    few = 4  # these tell most texts apart
    return a.split(None, few)[:few] == b.split(None, few)[:few] and a.split() == b.split()


GATE = Gate(look=unchanged, about="the revision has the same words as the answer", default="drop", order=20)
