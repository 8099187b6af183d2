"""Gate: the text is more than the answer: announced, wrapped, or followed by remarks. It can be repaired.

Layer by layer what is around the answer is taken off. What the earlier answer has too, or the prompt asks for (code,
JSON, quotes), is the answer's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cai.core.language import letters
from cai.core.plugin_types import Gate, GateInput
from cai.gates.remarks.edges import revised_section, without_head, without_tail
from cai.gates.remarks.wrappers import WRAPPERS

SHARED = 0.25
"""Share of its words that a quoted text has from the earlier answer if it is a revision of it."""
LAYERS = 8
"""Layers that are taken off at most."""

_REVISES = re.compile(
    r"\b(?:revis|rewrit|rephras|reword|edit|paraphras|proofread|shorten|summar|translat|correct|improv|draft|critique"
    r"|changes?|version)",
    re.IGNORECASE,
)
"""A prompt that is itself about changing a text."""
_ASKED = {
    "fence": re.compile(
        r"```|\b(?:code|script|function|program|markdown|python|javascript|sql|html|latex|regex|block|format)",
        re.IGNORECASE,
    ),
    "object": re.compile(r"[{<]|\b(?:json|object|dictionary|key|yaml|format|schema)", re.IGNORECASE),
    "tag": re.compile(r"<|\b(?:xml|html|tags?|format)\b", re.IGNORECASE),
    "quotes": re.compile(
        r"[\"“«「„]|\b(?:quot|say|slogan|title|headline|caption|sentence|phrase|translat|tagline|line|motto|joke|tweet"
        r"|rewrite|edit)",
        re.IGNORECASE,
    ),
    "marks": re.compile(r"[*>]|\b(?:bold|italic|markdown|format|bullet|list|quote)", re.IGNORECASE),
    "rules": re.compile(r"---|\b(?:markdown|format)\b", re.IGNORECASE),
    "section": _REVISES,
    "tail": _REVISES,
}
"""What in a prompt asks for what a layer would take off."""
_LAYERS: Mapping[str, Callable[[str], str]] = {
    **dict(WRAPPERS), "head": without_head, "section": revised_section, "tail": without_tail
}  # fmt: skip


def repaired(seen: GateInput) -> tuple[str, str]:
    """The answer without what is around it; and what was removed, empty if nothing."""
    text, removed = seen.after, list[str]()
    for _ in range(LAYERS):
        whole = text.strip()
        inner = next((cut for name in _LAYERS if (cut := _without(name, whole, seen)) != whole), whole)
        if inner == whole:
            break
        removed.append(_removed(whole, inner))
        text = inner
    return (text, " … ".join(removed)) if removed else (seen.after, "")


def preamble(seen: GateInput) -> str | None:
    """What is around the answer."""
    return repaired(seen)[1] or None


def _without(name: str, whole: str, seen: GateInput) -> str:
    """The text without this layer, unless that is the answer's own."""
    cut = _LAYERS[name](whole)
    if cut == whole or not cut.strip():
        return whole
    asked, before = seen.prompt.messages[-1].content[:20_000], seen.before.strip()
    wanted = _ASKED.get(name)
    own = (wanted is not None and wanted.search(asked)) or _LAYERS[name](before) != before
    own = own or (name == "fence" and "```" in before) or (name == "quotes" and not _revises(cut, before))
    return whole if own else cut


def _revises(text: str, before: str) -> bool:
    """Whether a text has words of the answer that it would replace, as a revision has; a quotation has others."""
    if max(text[:200], default="") >= "\u2e80":  # words of these scripts are not told apart by spaces
        return True
    words = set(letters(text[:2000]))
    return len(words & set(letters(before[:4000]))) >= SHARED * len(words)


def _removed(whole: str, inner: str) -> str:
    """What is missing of a text, shortened."""
    at = whole.find(inner)
    parts = (whole[:80],) if at < 0 else (whole[:at].strip()[:80], whole[at + len(inner) :].strip()[:80])
    return " … ".join(filter(None, parts))


GATE = Gate(
    look=preamble, about="the text is announced, wrapped or commented", default="repair", repair=repaired, order=60
)
