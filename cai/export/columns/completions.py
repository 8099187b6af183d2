"""The accepted answers of a trace as prompt and completion: what SFT may imitate.

Left out on purpose: other helpful answers. The paper mixes them in so that a model does not learn to evade; they come
from elsewhere, and the dataset card says that they are missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from cai.core.plugin_types import Column
from cai.core.types import Trace
from cai.data.answers import accepted_answers
from cai.data.messages import answer_dicts, message_dicts
from cai.export.columns.row import PROVENANCE, Row, provenance_columns

COLUMNS: Mapping[str, Column] = {"prompt": "messages", "completion": "messages", **PROVENANCE}


def accepted_rows(trace: Trace, made_by: str) -> list[Row]:
    """One row for each accepted answer, the last one final; `made_by` is the constitution's digest."""
    return [
        {
            "prompt": message_dicts(trace.prompt.messages),
            "completion": answer_dicts(answer.text),
            **provenance_columns(trace, answer.principles, answer.source, answer.gates, made_by),
        }
        for answer in accepted_answers(trace)
    ]
