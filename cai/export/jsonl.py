"""Plain JSONL: one pair a line, prompt and answers as text, and everything known about the pair, for a script or jq.

`prompt` is the text of a lone user turn; of a longer conversation it is all turns, each after its role. `conversation`
has the same turns as a list. It is not called `messages`, because TRL would train on a column of that name.

Left out on purpose: drafts, critiques and reasoning. They are in the run's `traces.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.core.types import Prompt
from cai.data.messages import message_dicts
from cai.export.columns.row import PROVENANCE, Row, pair_provenance


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each pair, in the run's order."""
    for pair in export.pairs():
        yield (
            export.split(pair.prompt),
            {
                "prompt": _text(pair.prompt),
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "p_chosen": pair.p_chosen,
                "conversation": message_dicts(pair.prompt.messages),
                "tags": list(pair.prompt.tags),
                **pair_provenance(pair, export.constitution),
            },
        )


def _text(prompt: Prompt) -> str:
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in prompt.messages)


FORMAT = Format(
    rows=rows,
    columns={
        "prompt": "text",
        "chosen": "text",
        "rejected": "text",
        "p_chosen": "float",
        "conversation": "messages",
        "tags": "texts",
        **PROVENANCE,
    },
    about="pairs as plain text, one JSON object a line",
    consumer="pandas, jq, your own script",
    file="jsonl",
)
