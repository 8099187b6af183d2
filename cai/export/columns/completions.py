"""The answers of a trace that the constitution stands behind, as prompt and completion: what SFT may imitate.

Those are the revisions that no gate turned away. A draft is one only where every critique of it found nothing at
fault; a draft whose revisions were all turned away is not, and gives no row.

Left out on purpose: other helpful answers. The paper mixes them in so that a model does not learn to evade; they come
from elsewhere, and the dataset card says that they are missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from cai.core.plugin_types import Column
from cai.core.types import Trace
from cai.export.columns.row import PROVENANCE, Row, answer, message_list, provenance_columns

COLUMNS: Mapping[str, Column] = {"prompt": "messages", "completion": "messages", **PROVENANCE}


def revised_completions(trace: Trace, made_by: str) -> list[Row]:
    """One row for each such answer, the last one final; `made_by` is the constitution's digest."""
    kept = [step for step in trace.steps if step.answer is not None]
    if not kept and trace.steps and all(step.verdict == "clean" for step in trace.steps):
        cleared_by = [step.principle for step in trace.steps]
        return [
            _row(trace, trace.draft.text, provenance_columns(trace, cleared_by, "revision:0", trace.gates, made_by))
        ]
    rows, principles = list[Row](), list[str]()
    for step in kept:
        principles.append(step.principle)
        origin = provenance_columns(trace, principles, f"revision:{step.round + 1}", step.gates, made_by)
        rows.append(_row(trace, step.answer or "", origin))
    return rows


def _row(trace: Trace, text: str, origin: Row) -> Row:
    return {"prompt": message_list(trace.prompt), "completion": answer(text), **origin}
