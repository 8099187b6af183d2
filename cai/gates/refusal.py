"""Gate: the text is a refusal."""

from __future__ import annotations

from cai.core.plugin_types import Gate, GateInput
from cai.core.refusals import refuses


def refusal(seen: GateInput) -> str | None:
    """The words that refuse."""
    return refuses(seen.after)


GATE = Gate(look=refusal, about="the text refuses to answer", on=("draft", "revision"), order=40)
