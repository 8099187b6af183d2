"""Preference pairs for LLaMA-Factory, with the `dataset_info.json` that describes the columns.

Left out on purpose: ties, since it treats every label as certain; and its alpaca form, which cannot hold a
conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from cai.core.plugin_types import Export, Format
from cai.data.messages import answer_dicts, message_dicts
from cai.export.columns.row import PROVENANCE, Row, decided, pair_provenance

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
    """One row for each pair that is no tie, in order; each answer is one message, as LLaMA-Factory reads it."""
    for pair in decided(export):
        row: Row = {
            "conversations": message_dicts(pair.prompt.messages),
            "chosen": answer_dicts(pair.chosen)[0],
            "rejected": answer_dicts(pair.rejected)[0],
            "p_chosen": pair.p_chosen,
            **pair_provenance(pair, export.constitution),
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
