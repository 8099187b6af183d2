"""Gate: chosen and rejected are the same for a trainer that cuts them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cai.core.config import Knobs
from cai.core.plugin_types import Gate, GateInput


class Options(Knobs):
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Words that a trainer will keep of prompt and answer; exact in `cai export --check`."""


def truncated_equal(seen: GateInput, options: Options) -> str | None:
    """How many words of chosen (`after`) and rejected (`before`) are left, and the same."""
    room = max(0, options.max_length - sum(len(message.content.split()) for message in seen.prompt.messages))
    if seen.after.split()[:room] == seen.before.split()[:room]:
        return f"equal in their first {room} words"
    return None


GATE = Gate(
    look=truncated_equal, about="chosen and rejected are equal once cut at max_length", on=("pair",), default="drop",
    options=Options, order=20,
)  # fmt: skip
