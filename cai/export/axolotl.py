"""Preference pairs for axolotl's `type: chat_template.default`: the conversation, and each answer as one message.

Left out on purpose: ties, since axolotl treats every label as certain; and the other dozen prompt strategies. This one
uses the model's own chat template.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.data.messages import answer_dicts, message_dicts
from cai.export.columns.row import PROVENANCE, Row, decided, pair_provenance


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each pair that is no tie, in the run's order."""
    for pair in decided(export):
        row: Row = {
            "messages": message_dicts(pair.prompt.messages),
            "chosen": answer_dicts(pair.chosen)[0],
            "rejected": answer_dicts(pair.rejected)[0],
            "p_chosen": pair.p_chosen,
            **pair_provenance(pair, export.constitution),
        }
        yield export.split(pair.prompt), row


FORMAT = Format(
    rows=rows,
    columns={"messages": "messages", "chosen": "message", "rejected": "message", "p_chosen": "float", **PROVENANCE},
    about="preference pairs, each answer one message",
    consumer="axolotl with rl: dpo and a dataset {path: train.jsonl, ds_type: json, type: chat_template.default}",
    file="jsonl",
)
