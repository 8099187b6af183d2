"""Revise: the answer written again so that the principle holds, with or without a critique first."""

from __future__ import annotations

from collections.abc import Awaitable

from cai.core.types import Completion
from cai.pipeline.stages.stage import Round, Stage
from cai.templates.template import Untrusted


def revise(stage: Stage, turn: Round, critique: str) -> Awaitable[Completion]:
    """A revision of the round's answer; an empty `critique` means direct revision. Raises CallFailed."""
    return stage.ask(turn.values | {"critique": Untrusted(critique)}, *turn.moment)
