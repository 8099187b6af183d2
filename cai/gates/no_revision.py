"""Gate: the revision says that nothing needs to be revised instead of being an answer."""

from __future__ import annotations

import re

from cai.core.plugin_types import Gate, GateInput

_NOTHING = re.compile(
    r"\W*(?:(?:there (?:is|are) )?no (?:further |more )?(?:revisions?|changes?|edits?|corrections?|rewrite)"
    r"(?: (?:is|are|was|were))?(?: (?:needed|necessary|required|made))?"
    r"|nothing (?:needs )?to (?:be )?(?:fix|change|revis|correct)\w*|n/?a|none(?: needed)?"
    r"|(?:the|this) (?:response|answer|text) (?:is|seems|looks) (?:already )?(?:fine|good|ok|okay|appropriate|clear)"
    r"(?: as (?:it )?is)?)\W*",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!])\s")


def no_revision(seen: GateInput) -> str | None:
    """The sentence that says so, alone or at the head of little else."""
    if len(seen.after) >= 400:
        return None
    first = seen.after.strip().split("\n", 1)[0][:200]
    if not _NOTHING.match(first):  # then not its first sentence either
        return None
    # the sentence alone, or at the head of little else: "No revisions needed." and then an explanation
    head = _SENTENCE.split(first, 1)[0]
    return first if _NOTHING.fullmatch(head) and not _NOTHING.fullmatch(seen.before) else None


GATE = Gate(look=no_revision, about="the revision only says that there is nothing to revise", default="drop", order=10)
