"""Supervised fine-tuning on final answers: one conversational prompt and completion for each trace.

A trainer that masks the prompt (TRL does for these columns) trains on the answer only.

Left out on purpose: earlier revisions, which `sft_all` has, and the column `messages`, which trains on prompts too.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.export.columns.completions import COLUMNS, accepted_rows
from cai.export.columns.row import Row


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """The last accepted answer of each trace."""
    for trace in export.traces():
        for row in accepted_rows(trace, export.constitution)[-1:]:
            yield export.split(trace.prompt), row


FORMAT = Format(rows=rows, columns=COLUMNS, about="prompt and final answer", consumer="trl.SFTTrainer")
