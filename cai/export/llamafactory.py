"""Preference pairs for LLaMA-Factory, with the `dataset_info.json` that tells it which column is what.

Left out on purpose: ties, which it would take for certain, as it does every row; and its alpaca form, which cannot hold
a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from cai.core.plugin_types import Export, Format
from cai.export.columns.row import PROVENANCE, Row, answer, decided, message_list, of_pair

_READING = {
    "ranking": True,
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each pair that is no tie, in order; each answer is one message, as LLaMA-Factory wants it."""
    for pair in decided(export):
        row: Row = {
            "conversations": message_list(pair.prompt),
            "chosen": answer(pair.chosen)[0],
            "rejected": answer(pair.rejected)[0],
            "p_chosen": pair.p_chosen,
            **of_pair(pair, export.constitution),
        }
        yield export.split(pair.prompt), row


def dataset_info(splits: Sequence[str]) -> Mapping[str, str]:
    """The file that LLaMA-Factory looks for in its dataset folder: `cai_train`, `cai_test` ..."""
    info = {f"cai_{split}": {"file_name": f"{split}.jsonl", **_READING} for split in splits}
    return {"dataset_info.json": json.dumps(info, indent=2) + "\n"}


FORMAT = Format(
    rows=rows,
    columns={
        "conversations": "messages",
        "chosen": "message",
        "rejected": "message",
        "p_chosen": "float",
        **PROVENANCE,
    },
    about="preference pairs in ShareGPT form, with dataset_info.json",
    consumer="llamafactory-cli train with dataset_dir: this folder, dataset: cai_train",
    file="jsonl",
    beside=dataset_info,
)
