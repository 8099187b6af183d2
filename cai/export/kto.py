"""Single answers labelled good or bad for KTO (Ethayarajh et al., 2024, arXiv 2402.01306), in alternation.

The order matters to TRL; see `labelled_answers`.

Left out on purpose: weights for an uneven number of labels. There is one of each for every pair.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.data.answers import labelled_answers
from cai.data.messages import answer_dicts, message_dicts
from cai.export.columns.row import PROVENANCE, Row, pair_provenance


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """Two rows for each pair whose chosen answer is more likely than not the better one."""
    for split, answer in labelled_answers(export.pairs(), export.split):
        row: Row = {
            "prompt": message_dicts(answer.pair.prompt.messages),
            "completion": answer_dicts(answer.text),
            "label": answer.good,
            **pair_provenance(answer.pair, export.constitution),
        }
        yield split, row


FORMAT = Format(
    rows=rows,
    columns={"prompt": "messages", "completion": "messages", "label": "bool", **PROVENANCE},
    about="answers labelled good or bad, in alternation",
    consumer="trl.KTOTrainer",
)
