"""Preference pairs for OpenRLHF, read with --apply_chat_template and the keys prompt, chosen and rejected.

It renders prompt and answer together and takes the part after the prompt, so both are message lists. For reward models
with margins the same rows with a `margin` are the format `reward`.

Left out on purpose: ties. OpenRLHF has no column for soft labels and treats every label as certain.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.export.columns.row import PREFERENCE, Row, decided, preference


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each pair that is no tie, in the run's order."""
    for pair in decided(export):
        yield export.split(pair.prompt), preference(pair, export.constitution)


FORMAT = Format(
    rows=rows,
    columns=PREFERENCE,
    about="preference pairs, one JSON object a line",
    consumer="openrlhf --prompt_key prompt --chosen_key chosen --rejected_key rejected --apply_chat_template",
    file="jsonl",
)
