"""The verdict at the end of a critique, and the critique without it."""

from __future__ import annotations

import re
from functools import lru_cache

from cai.core.reasoning import split_thinking
from cai.core.types import Judged

_AROUND = r"[\s*_#>`\"'“”‘’\[\](){}.!。|-]*+"
_LABEL = r"(?:(?:final|my|overall) +)?(?:verdict|conclusion|decision|urteil|veredicto)|结论|裁决|判定"
_VERDICT = re.compile(
    rf"^(?:```\w{{0,12}}[ \t]*\n)?[ \t*_#>`\"'“\[({{|-]*+(?:<verdict>|(?:{_LABEL})[ \t*_`\"'”’\])]*+(?:[:：=]"
    rf"|\n)){_AROUND}"
    rf"(revise|keep)(?:</verdict>)?{_AROUND}\Z",
    re.IGNORECASE | re.MULTILINE,
)
_TAIL = 200
"""Characters at the end in which a verdict must stand."""
_MEANS: dict[str, Judged] = {"revise": "fault", "keep": "clean"}


def critique_verdict(text: str) -> Judged:
    """The text's conclusion, `VERDICT: REVISE` or `VERDICT: KEEP`; anything else is `unclear`, not a guess."""
    return _concluded(text)[1] or "unclear"


def critique_body(text: str) -> str:
    """The critique without its verdict: what the revision is shown."""
    return _concluded(text)[0]


@lru_cache(maxsize=64)  # a critique is read for its verdict, its body and for contradictions, one after the other
def _concluded(text: str) -> tuple[str, Judged | None]:
    """The text without the verdict at its end, and the verdict; two that differ are none.

    Decoration, an end-of-turn token or a code fence around the verdict does not count; a word beside it does.
    """
    whole = split_thinking(text)[0].strip()
    end, verdicts = len(whole), set[Judged]()
    while found := _VERDICT.search(whole, max(0, end - _TAIL), end):
        verdicts.add(_MEANS[found[1].lower()])
        end = found.start()
        while end and whole[end - 1].isspace():
            end -= 1
    return (whole, None) if len(verdicts) > 1 else (whole[:end], next(iter(verdicts), None))
