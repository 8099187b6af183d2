"""Preference pairs for TRL: conversational, with an explicit prompt, so that no trainer has to guess where it ends.

`chosen` and `rejected` hold the answer alone; DPOTrainer and RewardTrainer take the rows as they are.

Left out on purpose: how sure we are. TRL has no column for a soft label.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.export._row import PROVENANCE, Row, answer, conversation, of_pair
from cai.types import Export, Format


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each pair, in the run's order."""
    for pair in export.pairs():
        yield (
            export.split(pair.prompt),
            {
                "prompt": conversation(pair.prompt),
                "chosen": answer(pair.chosen),
                "rejected": answer(pair.rejected),
                **of_pair(pair, export.constitution),
            },
        )


FORMAT = Format(
    rows=rows,
    columns={"prompt": "messages", "chosen": "messages", "rejected": "messages", **PROVENANCE},
    about="preference pairs, conversational",
    consumer="trl.DPOTrainer, trl.RewardTrainer",
)
