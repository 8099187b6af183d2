"""Draft: the writer's first answer to a prompt, before any principle has been shown to it (arXiv 2212.08073, 3.1)."""

from __future__ import annotations

from collections.abc import Awaitable

from cai.core.types import Completion, Prompt
from cai.pipeline.stages.stage import Stage
from cai.templates.template import turns


def draft(stage: Stage, prompt: Prompt, sample: int) -> Awaitable[Completion]:
    """The `sample`-th draft for `prompt`. Raises CallFailed."""
    return stage.ask({"conversation": turns(prompt.messages)}, prompt.id, sample)
