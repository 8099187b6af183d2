"""Gate: the revision says that nothing needs to be revised, or is only talk about it, instead of being an answer."""

from __future__ import annotations

from itertools import islice

from cai.core.plugin_types import Gate, GateInput
from cai.gates.remarks.sentences import after_openers, announces, describes, offers, says_nothing, sentences

SEEN = 600
"""Characters of an answer that are looked at."""

ENOUGH = 5
"""Words of an earlier answer that a nod does not replace."""
_NODS = frozenset(("ok", "okay", "done", "pass", "same", "understood", "sure", "noted", "agreed"))


def no_revision(seen: GateInput) -> str | None:
    """The sentence that says so: the first, or one of nothing but remarks."""
    if seen.after.strip(" .!*").lower() in _NODS and len(seen.before.split()) > ENOUGH:
        return seen.after
    text = after_openers(seen.after[:SEEN].strip())
    said = list(islice(sentences(text), 8))
    if not said:
        return None
    first = says_nothing(said[0])
    nothing = first and (len(said) == 1 or not said[0].strip(" .!").isalpha() or said[0].isupper())
    whole = len(seen.after) < SEEN and _final(text) and (first or _remark(said[0])) and all(map(_talk, said[1:]))
    if not nothing and not whole:
        return None
    if says_nothing(next(iter(sentences(seen.before[:SEEN])), "")):
        return None
    return said[0][:200].strip()


def _talk(sentence: str) -> bool:
    return _remark(sentence) or says_nothing(sentence)


def _remark(sentence: str) -> bool:
    headed = sentence.rstrip("*_ ").endswith((":", "：")) and announces(sentence)
    return headed or describes(sentence) or offers(sentence)


def _final(text: str) -> bool:
    """Whether it is talk of its own, and not a word such as `Answer` that an answer can be."""
    return len(text.split()) > 2 or not text.isascii()


GATE = Gate(look=no_revision, about="the revision only says that there is nothing to revise", default="drop", order=10)
