"""Two answers, one question: verdicts that the model writes, parsed strictly. For endpoints without log-probabilities.

A reply must be exactly one option of the menu; decoration (`**(A)**`, `Answer: A`, `{"winner": "A"}`) does not count.
Any other reply, also a sentence that argues for an option, fails the comparison: counting only the votes that can be
parsed would make a number out of failures.

Left out on purpose: asking again until a reply can be parsed, which would bias the result.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from cai.core.concurrency import together
from cai.core.config import Knobs
from cai.core.errors import Permanent
from cai.core.plugin_types import Judge
from cai.core.reasoning import split_thinking
from cai.core.types import Comparison, Opinion, Sampling
from cai.judges.panel.ask import LETTERS, JudgeContext, both_answers

MENU = (*LETTERS, "TIE", "PASS")
_VALUES = {"A": 1.0, "B": 0.0, "TIE": 0.5, "PASS": None}
_MOST = 200
"""Characters of a reply that can be one option and its decoration."""
_LABEL = (
    r"(?:(?:the|my) )?(?:(?:final|best|better|preferred|correct)[ _])?(?:answer|verdict|choice|option|response|winner|"
    r"preference|decision|judge?ment|result|output|selection|assistant|better|best|preferred|vote|pick)"
    r"|答案|选择|选项|结论|回答|裁决|antwort|urteil|option|réponse|choix|respuesta|opción|elección|veredicto"
)
_WRAPPED = re.compile(
    rf"""\{{\s*["']?(?:{_LABEL})["']?\s*:\s*(?P<value>.*)\}}"""
    rf"|<(?P<tag>{_LABEL})>(?P<held>.*)</(?P=tag)>"
    r"|\$?\\(?:boxed|text|textbf|mathbf|mathrm)\{(?P<maths>.*)\}\$?"
    r"|```\w{0,12}\n(?P<block>.*)```"
    rf"|[*_`]{{0,3}}(?:{_LABEL})(?: is)?(?:[ *_`]*:[ *_`]*|[ ]+|(?=[(\[*]))(?P<labelled>.*)",
    re.IGNORECASE | re.DOTALL,
)
_PAIRS = {
    "(": ")",
    "[": "]",
    "*": "*",
    "_": "_",
    "`": "`",
    '"': '"',
    "'": "'",
    "“": "”",
    "‘": "’",
    "「": "」",
    "【": "】",
}
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("。"): "."}


class Options(Knobs):
    """How many votes to ask for, and how to sample them."""

    votes: Annotated[int, Field(ge=1, le=100)] = 1
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Length of the reply; a model that reasons first needs tokens for that too."""

    @model_validator(mode="after")
    def _votes_need_a_temperature(self) -> Options:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("votes at temperature 0 are all the same; set a temperature")
        return self


async def judge(asked: Comparison, context: JudgeContext, options: Options) -> Opinion:
    """Share of the votes for the answer shown first, a tie counting half. Raises CallFailed."""
    sampling = Sampling(options.temperature, max_tokens=options.max_tokens, stop=context.template.header.stop)
    values = both_answers(asked) | {"menu": MENU}
    moment = asked.principle.id, asked.swapped
    replies = await together(
        context.words(values, asked.id, sampling, *moment, number) for number in range(options.votes)
    )
    votes = [vote for reply in replies if (vote := read_vote(reply.text)) is not None]
    raw = "\n".join(reply.text.strip() for reply in replies)
    return Opinion(sum(votes) / len(votes) if votes else None, raw)


def read_vote(text: str) -> float | None:
    """1 for (A), 0 for (B), 0.5 for TIE, None for PASS. Raises Permanent("unparsable") for anything else."""
    option = split_thinking(text)[0].strip()
    before = None
    while option != before and len(option) <= _MOST:
        before, option = option, _undecorated(option)
    if option.upper() not in _VALUES:
        raise Permanent("unparsable", f"not one of {', '.join(MENU)}: {text.strip()[:80]!r}")
    return _VALUES[option.upper()]


def _undecorated(text: str) -> str:
    """`text` without one layer of what can stand around an option: marks, brackets, a label, a tag, a JSON object."""
    text = text.translate(_FULL_WIDTH).strip()
    if len(text) > 1 and _PAIRS.get(text[0]) == text[-1] and not text.startswith("```"):
        return text[1:-1].strip()
    if found := _WRAPPED.fullmatch(text):
        return next(filter(None, found.group("value", "held", "maths", "block", "labelled")), "").strip()
    if text[:2] in ("- ", "* ", "> ", "# ", "##"):
        return text[1:].strip()
    if text[-1:] in (".", "!", ",") or (text[-1:] == ")" and "(" not in text):
        return text[:-1].strip()
    return text


JUDGE = Judge(
    options=Options,
    judge=judge,
    about="verdicts by generation, strictly read; works everywhere",
    calls=lambda options, principle: int(options.votes),
)
