"""Single answers with a thumb up or down for KTO (Ethayarajh et al., 2024, arXiv 2402.01306), good and bad in turn.

TRL reads these rows in order, and estimates the KL term by giving each prompt of a batch its neighbour's answer. So the
order matters: all good answers first would train on one label at a time, and an answer next to the other answer of its
own prompt would be no mismatch. Each rejected answer therefore waits until another prompt's chosen one has gone by.

Left out on purpose: weights for an uneven number of labels. There is one of each for every pair.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.core.types import Pair
from cai.export.columns.row import PROVENANCE, Row, answer, message_list, of_pair

SURE_ENOUGH = 0.5
"""Labels at or below are no thumb: a tie names neither answer good, and a doubted revision not its draft bad."""


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """Two rows for each pair; as many rejected ones wait in memory as one prompt has pairs."""
    waiting: defaultdict[str, deque[Row]] = defaultdict(deque)
    for pair in export.pairs():
        if pair.p_chosen <= SURE_ENOUGH:
            continue
        split = export.split(pair.prompt)
        rejected = waiting[split]
        yield split, _row(pair, pair.chosen, True, export.constitution)
        if rejected and rejected[0]["prompt_id"] != pair.prompt.id:
            yield split, rejected.popleft()
        rejected.append(_row(pair, pair.rejected, False, export.constitution))
    for split, rejected in waiting.items():
        for row in rejected:
            yield split, row


def _row(pair: Pair, text: str, label: bool, made_by: str) -> Row:
    return {
        "prompt": message_list(pair.prompt),
        "completion": answer(text),
        "label": label,
        **of_pair(pair, made_by),
    }


FORMAT = Format(
    rows=rows,
    columns={"prompt": "messages", "completion": "messages", "label": "bool", **PROVENANCE},
    about="answers labelled good or bad, in turn",
    consumer="trl.KTOTrainer",
)
