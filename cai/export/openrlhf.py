"""Preference pairs for OpenRLHF, read with --apply_chat_template and the keys prompt, chosen and rejected.

It renders prompt and answer together and takes the part after the prompt, so both are message lists. For reward models
with margins the same rows with a `margin` are the format `reward`.

Left out on purpose: soft labels. OpenRLHF has no place for them.
"""

from __future__ import annotations

from cai.export._row import PREFERENCE
from cai.export.trl import rows
from cai.records import Format

FORMAT = Format(
    rows=rows,
    columns=PREFERENCE,
    about="preference pairs, one JSON object a line",
    consumer="openrlhf --prompt_key prompt --chosen_key chosen --rejected_key rejected --apply_chat_template",
    file="jsonl",
)
