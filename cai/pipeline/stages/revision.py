"""Critique: what is wrong with an answer, by one principle (arXiv 2212.08073, 3.1).

The context is the conversation with the current answer in place, never the critiques of earlier rounds: that is what
lets rounds compose.
"""

from __future__ import annotations

from collections.abc import Awaitable

from cai.core.types import Completion, Constitution, Example, GateHit, Judged, Principle, Prompt
from cai.pipeline.stages.contradiction import contradicts
from cai.pipeline.stages.stage import Round, Stage, take_inside, take_whole
from cai.pipeline.stages.verdict_line import critique_body, critique_verdict
from cai.templates.sandbox import Untrusted, turns


async def critique(stage: Stage, turn: Round) -> tuple[Completion, Judged | None, tuple[GateHit, ...]]:
    """A critique of the round's answer, its verdict where the template asks for one, and what was noticed.

    A verdict in the fence is part of the material and none. Raises CallFailed.
    """
    completion, cut = await stage.ask(turn.values, *turn.moment)
    judged = None
    if stage.template.header.verdict:
        judged = critique_verdict(cut.outside if cut else completion.text)
    completion, hits = take_whole(completion, cut)
    if why := contradicts(critique_body(completion.text), judged):
        hits = (*hits, GateHit("contradiction", "tag", why))
    return completion, judged, hits


def worked(constitution: Constitution, principle: Principle, count: int) -> tuple[Example, ...]:
    """Up to `count` worked cases for few-shots: the principle's own first, then the constitution's."""
    return (principle.examples + constitution.examples)[:count]


def draft(stage: Stage, prompt: Prompt, sample: int) -> Awaitable[tuple[Completion, tuple[GateHit, ...]]]:
    """The `sample`-th draft for `prompt`, and what was cut from it. Raises CallFailed."""
    return stage.answer({"conversation": turns(prompt.messages)}, prompt.id, sample)


async def revise(stage: Stage, turn: Round, critique: str) -> tuple[Completion, tuple[GateHit, ...]]:
    """A revision of the round's answer, and what was cut from it; an empty `critique` means direct revision.

    Raises CallFailed.
    """
    return take_inside(*await stage.ask(turn.values | {"critique": Untrusted(critique)}, *turn.moment))
