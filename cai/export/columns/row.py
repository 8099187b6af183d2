"""What exported rows share: a conversation as messages, and the columns that say where a row comes from.

Left out on purpose: reasoning. A row holds answers as they were kept; what a model thought stays in the traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import log

from cai.core.plugin_types import Column, Export
from cai.core.types import GateHit, Pair, Prompt, Trace

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


def provenance_columns(
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
    return provenance_columns(pair, pair.principles, pair.source, pair.gates, made_by)


def decided(export: Export) -> Iterator[Pair]:
    """The pairs that are no ties, for trainers that take every row for certain."""
    return (pair for pair in export.pairs() if pair.p_chosen != 0.5)


def preference(pair: Pair, made_by: str) -> Row:
    """A pair as TRL has it: prompt, chosen and rejected as message lists, and where they come from."""
    return {
        "prompt": message_list(pair.prompt),
        "chosen": answer(pair.chosen),
        "rejected": answer(pair.rejected),
        "p_chosen": pair.p_chosen,
        **of_pair(pair, made_by),
    }


PREFERENCE: Mapping[str, Column] = {
    "prompt": "messages",
    "chosen": "messages",
    "rejected": "messages",
    "p_chosen": "float",
    **PROVENANCE,
}

SURE = 0.999
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken: 6.9, where a label is certain."""


def margin(p_chosen: float) -> float:
    """Log-odds (nats) of the label, signed: by how much the chosen answer should win."""
    p = min(max(p_chosen, 1 - SURE), SURE)
    return log(p / (1 - p))


def message_list(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as the message list that chat templates take."""
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def answer(text: str) -> list[dict[str, str]]:
    """An answer as the message list that follows a conversation."""
    return [{"role": "assistant", "content": text}]
