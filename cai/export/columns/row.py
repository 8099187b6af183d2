"""Columns that exported rows share: a preference pair, and where a row comes from.

Left out on purpose: reasoning. A row holds answers as they were kept; the reasoning stays in the traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import log

from cai.core.plugin_types import Column, Export
from cai.core.types import GateHit, Pair, Trace
from cai.data.messages import answer_dicts, message_dicts

Row = dict[str, object]

PROVENANCE: Mapping[str, Column] = {
    "prompt_id": "text",
    "sample": "int",
    "principles": "texts",
    "source": "text",
    "gates": "texts",
    "constitution": "text",
}
"""Trainers ignore these columns; they lead a person from a row to its trace."""


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


def pair_provenance(pair: Pair, made_by: str) -> Row:
    """The PROVENANCE columns of a pair."""
    return provenance_columns(pair, pair.principles, pair.source, pair.gates, made_by)


def decided(export: Export) -> Iterator[Pair]:
    """The pairs that are no ties, for trainers that treat every label as certain."""
    return (pair for pair in export.pairs() if pair.p_chosen != 0.5)


def preference(pair: Pair, made_by: str) -> Row:
    """A pair in TRL's columns: prompt, chosen and rejected as message lists, and where they come from."""
    return {
        "prompt": message_dicts(pair.prompt.messages),
        "chosen": answer_dicts(pair.chosen),
        "rejected": answer_dicts(pair.rejected),
        "p_chosen": pair.p_chosen,
        **pair_provenance(pair, made_by),
    }


PREFERENCE: Mapping[str, Column] = {
    "prompt": "messages",
    "chosen": "messages",
    "rejected": "messages",
    "p_chosen": "float",
    **PROVENANCE,
}

SURE = 0.999
"""Probabilities are clipped to [1 - SURE, SURE] before their log-odds are taken: a certain label has 6.9."""


def margin(p_chosen: float) -> float:
    """Log-odds (nats) of the label, signed: by how much the chosen reward should exceed the rejected one."""
    p = min(max(p_chosen, 1 - SURE), SURE)
    return log(p / (1 - p))
