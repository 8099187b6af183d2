"""Gate: the text talks about its own revision."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cai.core.language import letters
from cai.core.plugin_types import Gate, GateInput

SEEN = 20_000
"""Characters of an answer that are looked at."""

EDGE = 400
"""Characters of a first and last line that are looked at for remarks."""

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

_TASK = re.compile(
    r"\b(?:the|this|that|my|your|our|its) (?:\w+ )?(?P<en>response|reply|revision|critique|rewrite|(?:guideline"
    r"|principle)s?)\b"
    r"(?! (?:of|behind|from)\b)|\b(?:this|my|your|the (?:revised|original|new|updated|old|above)) (?P<answer>answer)\b"
    r"|\bthe (?P<acts>answer) (?:now|no longer|already|follows|complies|respects|adheres|avoids|does not|should be"
    r"|was changed)\b"
    r"|\b(?:diese|meine|überarbeitete|ursprüngliche) (?P<de>antwort|fassung)\b|\b(?:cette|ma) (?P<fr>réponse)\b"
    r"|\b(?:esta|mi) (?P<es>respuesta)\b|(?:原|该|此|这个|修改后的)(?P<zh>回答|答案)",
    re.IGNORECASE,
)
"""The answer as a thing, or the rule it is held to: nobody who answers a question speaks of these."""


def meta(seen: GateInput) -> str | None:
    """Words about the critique or the revision itself, which the conversation does not use."""
    text = seen.after[:SEEN]
    hints = not _META_HINTS.isdisjoint(letters(text))
    found = [*(_META.finditer(text) if hints else ()), *_spoken_of(seen.after)]
    if not found:
        return None
    # words that the conversation itself uses are its subject (an essay on the Constitution), not talk about the task
    known = " ".join(message.content for message in seen.prompt.messages).lower() + " " + seen.before.lower()
    return next((one[0].strip() for one in found if (one[one.lastgroup or 0]).lower() not in known), None)


def _spoken_of(text: str) -> Iterator[re.Match[str]]:
    """The answer spoken of where remarks stand: in the first line of several, or in the last sentence."""
    first, broken, rest = text.strip().partition("\n")
    if broken:
        yield from _TASK.finditer(first[:EDGE])
    last = (rest.rstrip().rpartition("\n")[2] or rest) if broken else first.partition(". ")[2]
    yield from _TASK.finditer(last[-EDGE:])


GATE = Gate(look=meta, about="the text talks about its own revision", default="drop", order=70)
