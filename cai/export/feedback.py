"""Critiques to learn from: prompt, answer and principle in, the critique out, for training a critic.

Each row is one critique whose revision was kept, or that found nothing to mend, as prompt and completion.

Left out on purpose: critiques whose revision a gate turned away. They led nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.core.types import Step, Trace
from cai.export.columns.row import PROVENANCE, Row, answer, provenance_columns


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each critique that was followed, in the run's order."""
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
        "prompt": [{"role": "user", "content": question}],
        "completion": answer(critique),
        **provenance_columns(trace, (step.principle,), f"critique:{step.round + 1}", step.gates, made_by),
    }


FORMAT = Format(
    rows=rows,
    columns={"prompt": "messages", "completion": "messages", **PROVENANCE},
    about="critiques as completions, for a critic of one's own",
    consumer="trl.SFTTrainer",
)
