"""Critiques as training rows for a critic: prompt and answer in, the critique out.

Each row is one critique whose revision was kept, or that found no fault, as prompt and completion.

Left out on purpose: critiques whose revision a gate rejected.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.core.types import Message, Step, Trace
from cai.data.messages import answer_dicts, message_dicts
from cai.export.columns.row import PROVENANCE, Row, provenance_columns


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each such critique, in the run's order."""
    for trace in export.traces():
        before = trace.draft.text
        for step in trace.steps:
            if step.critique and (step.answer is not None or step.verdict == "clean"):
                yield export.split(trace.prompt), _row(trace, step, before, export.constitution)
            before = step.answer or before


def _row(trace: Trace, step: Step, before: str, made_by: str) -> Row:
    turns = "\n\n".join(f"{message.role}: {message.content}" for message in trace.prompt.messages)
    question = f"Criticise the last answer.\n\n{turns}\n\nassistant: {before}"
    critique = step.critique.text if step.critique else ""
    return {
        "prompt": message_dicts([Message("user", question)]),
        "completion": answer_dicts(critique),
        **provenance_columns(trace, (step.principle,), f"critique:{step.round + 1}", step.gates, made_by),
    }


FORMAT = Format(
    rows=rows,
    columns={"prompt": "messages", "completion": "messages", **PROVENANCE},
    about="critiques as completions, for training a critic",
    consumer="trl.SFTTrainer",
)
