"""Supervised fine-tuning on final answers: one conversational prompt and completion for each trace.

A trainer that masks the prompt (TRL does for these columns) learns the answer only.

Left out on purpose: the revisions on the way, which `sft_all` has, and the `messages` shape, which trains on prompts.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.export.columns.completions import COLUMNS, revised_completions
from cai.export.columns.row import Row


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """The last answer of each trace that the constitution stands behind."""
    for trace in export.traces():
        for row in revised_completions(trace, export.constitution)[-1:]:
            yield export.split(trace.prompt), row


FORMAT = Format(rows=rows, columns=COLUMNS, about="prompt and final answer", consumer="trl.SFTTrainer")
