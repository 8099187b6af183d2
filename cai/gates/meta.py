"""Gate: the text talks about its own revision."""

from __future__ import annotations

import re

from cai.core.language import letters
from cai.core.plugin_types import Gate, GateInput

SEEN = 20_000
"""Characters of an answer that are looked at."""

_META = re.compile(
    r"\b(?:the|this|your|my|above) (?:critique|criticism|constitution(?:al)? principle|feedback (?:above|given))\b"
    r"|\b(?:the|my|this) (?:original|previous|preceding|revised|rewritten) (?:response|answer|version|text|draft)\b"
    r"|\bi(?:['’]ve| have)? (?:revised|rewritten|rewrote|rephrased) (?:the|my|this)\b"
    r"|^[^\w\n]{0,4}(?:note|changes(?: made)?|explanation)[^\w\n]{0,4}:.{0,60}\b(?:revis|rewr|chang|remov|shorten)\w+",
    re.IGNORECASE | re.MULTILINE,
)

_META_HINTS = frozenset({
    "critique", "criticism", "principle", "feedback", "original", "previous", "preceding", "revised", "rewritten",
    "rewrote", "rephrased", "note", "changes", "explanation",
})  # fmt: skip
"""Words without one of which nothing above matches; looking for them first takes a third of the time."""


def meta(seen: GateInput) -> str | None:
    """Words about the critique or the revision itself, which the conversation does not use."""
    if _META_HINTS.isdisjoint(letters(seen.after[:SEEN])):
        return None
    # words that the conversation itself uses are its subject (an essay on the Constitution), not talk about the task
    known = " ".join(message.content for message in seen.prompt.messages) + " " + seen.before
    for found in _META.finditer(seen.after[:SEEN]):
        if found[0].lower() not in known.lower():
            return found[0].strip()
    return None


GATE = Gate(look=meta, about="the text talks about its own revision", default="drop", order=70)
