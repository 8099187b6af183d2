"""Gate: one answer of a pair is many times as long as the other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cai.core.config import Knobs
from cai.core.plugin_types import Gate, GateInput


class Options(Knobs):
    max_ratio: Annotated[float, Field(gt=1)] = 5.0
    """Chosen against rejected in words, either way."""


def length_ratio(seen: GateInput, options: Options) -> str | None:
    """The words of chosen (`after`) and rejected (`before`)."""
    a, b = len(seen.after.split()), len(seen.before.split())
    return f"{a} against {b} words" if max(a, b) / max(1, min(a, b)) > options.max_ratio else None


GATE = Gate(look=length_ratio, about="one answer is many times as long", on=("pair",), options=Options, order=30)
