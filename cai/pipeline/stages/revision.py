"""Critique: what is wrong with an answer, by one principle (arXiv 2212.08073, 3.1).

The context is the conversation with the current answer in place, never the critiques of earlier rounds: that is what
lets rounds compose.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable

from cai.core.types import Completion, Constitution, Example, Judged, Principle, Prompt
from cai.pipeline.stages.stage import Round, Stage
from cai.templates.sandbox import Untrusted, turns

_VERDICT = re.compile(r"[\s*_#>]*verdict[\s*_]*:[\s*_]*(revise|keep)[\s*_.!]*", re.IGNORECASE)
_MEANS: dict[str, Judged] = {"revise": "fault", "keep": "clean"}


async def critique(stage: Stage, turn: Round) -> tuple[Completion, Judged | None]:
    """A critique of the round's answer, and its verdict where the template asks for one. Raises CallFailed."""
    completion = await stage.ask(turn.values, *turn.moment)
    return completion, critique_verdict(completion.text) if stage.template.header.verdict else None


def critique_verdict(text: str) -> Judged:
    """The last line's conclusion, `VERDICT: REVISE` or `VERDICT: KEEP`; anything else is `unclear`, not a guess."""
    found = _VERDICT.fullmatch(_lines(text)[-1])
    return _MEANS[found[1].lower()] if found else "unclear"


def critique_body(text: str) -> str:
    """The critique without its verdict line: what the revision is shown."""
    lines = _lines(text)
    return "\n".join(lines[:-1] if _VERDICT.fullmatch(lines[-1]) else lines).strip()


def worked(constitution: Constitution, principle: Principle, count: int) -> tuple[Example, ...]:
    """Up to `count` worked cases for few-shots: the principle's own first, then the constitution's."""
    return (principle.examples + constitution.examples)[:count]


def _lines(text: str) -> list[str]:
    return text.strip().split("\n")


def draft(stage: Stage, prompt: Prompt, sample: int) -> Awaitable[Completion]:
    """The `sample`-th draft for `prompt`. Raises CallFailed."""
    return stage.ask({"conversation": turns(prompt.messages)}, prompt.id, sample)


def revise(stage: Stage, turn: Round, critique: str) -> Awaitable[Completion]:
    """A revision of the round's answer; an empty `critique` means direct revision. Raises CallFailed."""
    return stage.ask(turn.values | {"critique": Untrusted(critique)}, *turn.moment)
