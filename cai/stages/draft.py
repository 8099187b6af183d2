"""Draft: the writer's first answer to a prompt, before any principle has been shown to it (arXiv 2212.08073, 3.1)."""

from __future__ import annotations

from cai.stages._ask import Stage
from cai.templates import turns
from cai.types import Completion, Prompt


async def draft(stage: Stage, prompt: Prompt, sample: int) -> Completion:
    """The `sample`-th draft for `prompt`. Raises CallFailed."""
    return await stage.ask({"conversation": turns(prompt.messages)}, prompt.id, sample)
