"""Notices a critique whose words and verdict contradict each other.

The words decide only where they are plain: they find nothing to change, or they say that something must be changed. A
critique that does both contradicts no verdict.
"""

from __future__ import annotations

import re

from cai.core.types import Judged
from cai.gates.remarks.sentences import says_nothing, sentences
from cai.pipeline.stages.verdict_line import critique_body

SEEN = 8000
"""Characters of a critique that are looked at."""

_SUBJECT = (
    r"(?:the|this|that|your|its|my)(?: \w+)? (?:answer|response|reply|text|draft|sentence|paragraph|passage|claim"
    r"|statement|aside|remark|wording|tone)|it|this|which"
)
_NO_FAULT = re.compile(
    r"\b(?:no|not any|without(?: any)?) (?:\w+ )?(?:conflicts?|violations?|issues?|problems?|faults?|contradictions?"
    r"|breach(?:es)?)\b"
    r"|\bnothing (?:\w+ ){0,5}?(?:conflicts?|violates?|contradicts?|needs?|to (?:change|fix|revise))\b"
    r"|\b(?:does not|doesn['’]t|do not) (?:\w+ )?(?:conflict|violate|contradict|breach|go against|need|require)\b"
    r"|\b(?:answer|response|reply|it|draft) (?:\w+ ){0,2}?(?:follows|adheres to|complies with|respects|satisfies|meets"
    r"|aligns with|upholds|conforms to|is in line with"
    r"|is consistent with) (?:the|this|that) (?:\w+ )?(?:principle|guideline|rule|constitution)",
    re.IGNORECASE,
)
_FAULT = re.compile(
    rf"\b(?:{_SUBJECT}) (?:\w+ly |also )?(?:violates?|conflicts with|contradicts|breaks|breaches|goes against"
    rf"|is in conflict with|disregards) "
    r"(?:the|this|that) (?:\w+ )?(?:principle|guideline|rule|constitution)"
    rf"|\b(?:{_SUBJECT})(?: about [\w ]{{1,30}}| on [\w ]{{1,30}})? (?:should|must|needs to|has to"
    rf"|ought to) be (?:revised|rewritten|removed|changed|deleted|cut|rephrased|corrected|left out)"
    r"|\b(?:answer|response|reply|it|draft) (?:\w+ly )?fails to (?:answer|follow|respect|meet|comply|address)",
    re.IGNORECASE,
)
_TURNS = re.compile(
    r"\b(?:but|however|although|though|yet|except|nevertheless|still|could|should|would|must|needs? to (?:be|mention"
    r"|say)|might|if"
    r"|aber|jedoch|sollte|mais|cependant|devrait|pero|sin embargo|debería)\b|但|不过|然而|应该|应当",
    re.IGNORECASE,
)
"""Words that take back or qualify what was said."""
_NEGATES = re.compile(
    r"\b(?:not|no|nothing|never|none|neither|nor|without|hardly|if|would|could|might|unless|avoids?|instead|whether)\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)


def contradicts(critique_text: str, verdict: Judged | None) -> str | None:
    """The words that contradict the verdict: no fault found where it says revise, one named where it says keep."""
    if verdict not in ("fault", "clean"):
        return None
    said = sentences(critique_body(critique_text)[:SEEN])
    if verdict == "clean":
        faulty = next((one for one in said if _names_a_fault(one[:300])), None)
        return None if faulty is None or any(map(_finds_none, said)) else faulty[:200].strip()
    clean = [one for one in said if _finds_none(one)]
    if not clean or any(one not in clean and _names_a_fault(one[:300]) for one in said):
        return None
    turned = any(_TURNS.search(one[:300]) for one in said)
    return clean[0][:200].strip() if not turned or _plain(said, clean) else None


def _finds_none(sentence: str) -> bool:
    return says_nothing(sentence) or bool(_NO_FAULT.search(sentence[:300]))


def _names_a_fault(sentence: str) -> bool:
    found = _FAULT.search(sentence)
    if not found:
        return False
    clause = sentence[: found.start()].rpartition(",")[2] + sentence[found.start() :]
    return not _NEGATES.search(clause)


def _plain(said: list[str], clean: list[str]) -> bool:
    """Whether every sentence that qualifies something is itself one that finds no fault: `I would not change it`."""
    return all(one in clean and says_nothing(one) for one in said if _TURNS.search(one[:300]))
