"""Supervised fine-tuning on every accepted revision, as Constitutional AI trains (arXiv 2212.08073, section 3).

The rows of one trace are adjacent; the last of them is the row that `sft` has.

Left out on purpose: a weight for later revisions. The paper has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.export.columns.completions import COLUMNS, accepted_rows
from cai.export.columns.row import Row


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """All accepted answers of each trace, in the order of revision."""
    for trace in export.traces():
        for row in accepted_rows(trace, export.constitution):
            yield export.split(trace.prompt), row


FORMAT = Format(rows=rows, columns=COLUMNS, about="prompt and every accepted revision", consumer="trl.SFTTrainer")
