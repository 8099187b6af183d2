"""Draft: the writer's first answer to a prompt, before any principle has been shown to it (arXiv 2212.08073, 3.1)."""

from __future__ import annotations

from collections.abc import Awaitable

from cai.stages._ask import Stage
from cai.templates import turns
from cai.types import Completion, Prompt


def draft(stage: Stage, prompt: Prompt, sample: int) -> Awaitable[Completion]:
    """The `sample`-th draft for `prompt`. Raises CallFailed."""
    return stage.ask({"conversation": turns(prompt.messages)}, prompt.id, sample)
