"""Which split a prompt belongs to: by its content, so that equal conversations stay together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cai.core.errors import Mistake
from cai.core.seeds import digest, uniform
from cai.core.types import Prompt

Split = Callable[[Prompt], str]


SPLIT = re.compile(r"[a-z0-9_]{1,50}")
"""Allowed names of splits: they become file names, and `datasets` allows little more."""


def make_split(test_share: float, seed: int) -> Split:
    """`test` for about `test_share` of all conversations, `train` for the others, by content: equal ones stay together.

    A split that the prompt itself names takes precedence.
    """
    return lambda prompt: (
        prompt.split or ("test" if uniform("split", seed, conversation_digest(prompt)) < test_share else "train")
    )


def consistent_split(split: Split, prompts: Iterable[Prompt]) -> Split:
    """`split`, except that a split named by one prompt holds for every equal conversation among `prompts`.

    Of two names for one conversation the one that is not `train` is taken, then the first in the alphabet. Only prompts
    that name a split are remembered.
    """
    named: dict[str, str] = {}
    for prompt in prompts:
        if prompt.split is not None:
            key = conversation_digest(prompt)
            named[key] = min(named.get(key, prompt.split), prompt.split, key=lambda name: (name == "train", name))

    def consistent(prompt: Prompt) -> str:
        # a digest takes time, so it is only computed where some prompt names a split
        name = named.get(conversation_digest(prompt)) if named else None
        return _safe(name or split(prompt), prompt)

    return consistent


def conversation_digest(prompt: Prompt) -> str:
    """The identity of a prompt's content: case and spacing do not count, so a near copy cannot leak between splits."""
    return digest([(message.role, " ".join(message.content.casefold().split())) for message in prompt.messages])


def _safe(name: str, prompt: Prompt) -> str:
    if not SPLIT.fullmatch(name) or name == "all":  # `all` means every split to datasets
        fix = "name splits with lower-case letters, digits and _, at most 50, and none of them `all`"
        raise Mistake(f"prompt {prompt.id!r}", f"{name!r} cannot be the name of a split", fix)
    return name
