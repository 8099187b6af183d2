"""Gate: the text is more than the answer: announced, wrapped, or followed by remarks. It can be repaired.

Layer by layer what is around the answer is taken off. What the earlier answer has too, or the prompt asks for (code,
JSON, quotes), is the answer's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cai.core.plugin_types import Gate, GateInput
from cai.gates.remarks.edges import revised_section, without_head, without_tail
from cai.gates.remarks.wrappers import WRAPPERS

LAYERS = 8
"""Layers that are taken off at most."""

_ASKED = {
    "fence": re.compile(
        r"```|\b(?:code|script|function|program|markdown|python|javascript|sql|html|latex|regex|block"
        r"|format)",
        re.I,
    ),
    "object": re.compile(r"[{<]|\b(?:json|object|dictionary|key|yaml|format|schema)", re.I),
    "tag": re.compile(r"<|\b(?:xml|html|tags?|format)\b", re.I),
    "quotes": re.compile(
        r"[\"“«「„]|\b(?:quot|say|slogan|title|headline|caption|sentence|phrase|translat|tagline|line"
        r"|motto|joke|tweet|rewrite|edit)",
        re.I,
    ),
    "marks": re.compile(r"[*>]|\b(?:bold|italic|markdown|format|bullet|list|quote)", re.I),
    "rules": re.compile(r"---|\b(?:markdown|format)\b", re.I),
}
"""What in a prompt asks for a wrapper."""
_REVISES = re.compile(
    r"\b(?:revis|rewrit|rephras|reword|edit|paraphras|proofread|shorten|summar|translat|correct|improv|draft|critique"
    r"|changes?|version)",
    re.I,
)
"""A prompt that is itself about changing a text."""


def repaired(seen: GateInput) -> tuple[str, str]:
    """The answer without what is around it; and what was removed, empty if nothing."""
    layers = list(_layers(seen))
    text, removed = seen.after, list[str]()
    for _ in range(LAYERS):
        whole = text.strip()
        inner = next((cut for layer in layers if (cut := layer(whole)) != whole and cut.strip()), whole)
        if inner == whole:
            break
        removed.append(_removed(whole, inner))
        text = inner
    return (text, " … ".join(removed)) if removed else (seen.after, "")


def preamble(seen: GateInput) -> str | None:
    """What is around the answer."""
    return repaired(seen)[1] or None


def _layers(seen: GateInput) -> Iterator[Callable[[str], str]]:
    """What may be taken off this text."""
    asked, before = seen.prompt.messages[-1].content[:20_000], seen.before.strip()
    for name, layer in WRAPPERS:
        if not _ASKED[name].search(asked) and layer(before) == before and not (name == "fence" and "```" in before):
            yield layer
    about_text = bool(_REVISES.search(asked))
    if without_head(before) == before:
        yield without_head
    if not about_text and revised_section(before) == before:
        yield revised_section
    if not about_text and without_tail(before) == before:
        yield without_tail


def _removed(whole: str, inner: str) -> str:
    """What is missing of a text, shortened."""
    at = whole.find(inner)
    parts = (whole[:80],) if at < 0 else (whole[:at].strip()[:80], whole[at + len(inner) :].strip()[:80])
    return " … ".join(filter(None, parts))


GATE = Gate(
    look=preamble, about="the text is announced, wrapped or commented", default="repair", repair=repaired, order=60
)
