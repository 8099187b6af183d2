"""What exported rows share: a conversation as messages, and the columns that say where a row comes from.

Left out on purpose: reasoning. A row holds answers as they were kept; what a model thought stays in the traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cai.types import Column, GateHit, Pair, Prompt, Trace

Row = dict[str, object]

PROVENANCE: Mapping[str, Column] = {
    "prompt_id": "text",
    "sample": "int",
    "principles": "texts",
    "source": "text",
    "gates": "texts",
    "constitution": "text",
}
"""Trainers ignore these columns; a person who doubts a row finds its trace by them."""


def provenance(
    row: Trace | Pair, principles: Iterable[str], source: str, gates: Iterable[GateHit], made_by: str
) -> Row:
    """The PROVENANCE columns; `made_by` is the constitution's digest."""
    return {
        "prompt_id": row.prompt.id,
        "sample": row.sample,
        "principles": list(principles),
        "source": source,
        "gates": [f"{hit.gate}:{hit.action}" for hit in gates],
        "constitution": made_by,
    }


def of_pair(pair: Pair, made_by: str) -> Row:
    """The PROVENANCE columns of a pair."""
    return provenance(pair, pair.principles, pair.source, pair.gates, made_by)


def conversation(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as the message list that chat templates take."""
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def answer(text: str) -> list[dict[str, str]]:
    """An answer as the message list that follows a conversation."""
    return [{"role": "assistant", "content": text}]
