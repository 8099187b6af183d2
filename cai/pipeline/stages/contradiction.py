"""Contradiction: a critique whose words say one thing and whose verdict says the other.

Only plain statements about the whole answer count, so that a critique that weighs both sides is none.
"""

from __future__ import annotations

import re

from cai.core.types import Judged

_NOTHING = re.compile(
    r"\b(?:there is|there's|i (?:find|see)) (?:nothing|no (?:need|reason))"
    r" (?:to (?:change|mend|revise|correct)|wrong)\b"
    r"|\b(?:nothing|no part of it|no part of the answer) (?:needs|has) to (?:be )?chang\w*"
    r"|\bno (?:changes?|revisions?) (?:is|are) (?:needed|necessary|required)\b"
    r"|\bthe answer can stand\b",
    re.IGNORECASE,
)
"""Nothing is at fault."""
_FAULT = re.compile(
    r"\b(?:the answer|it|this) (?:should|must|needs to) be (?:changed|revised|rewritten|corrected)\b"
    r"|\b(?:the answer|it) (?:clearly )?(?:violates|conflicts with|breaks) the principle\b",
    re.IGNORECASE,
)
"""Something is at fault."""


def contradicts(critique: str, verdict: Judged | None) -> str | None:
    """The words that contradict the verdict, None where none do."""
    if verdict not in ("fault", "clean"):
        return None
    says, other = (_NOTHING, _FAULT) if verdict == "fault" else (_FAULT, _NOTHING)
    found = says.search(critique)
    return None if found is None or other.search(critique) else f"{found[0]!r}, and the verdict is {verdict}"
