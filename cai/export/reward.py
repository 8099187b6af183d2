"""Preference pairs with a margin, which reward trainers subtract before the sigmoid: TRL's RewardTrainer and OpenRLHF.

The margin is the log-odds of the label: a tie asks for no distance between the two rewards, a certain label for a large
one. It is not a soft label; a trainer that reads `p_chosen` uses that instead.

Left out on purpose: pairs with p_chosen of at most 0.5. Trainers read a negative margin as a small one.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.export.columns.row import PREFERENCE, Row, margin, preference


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each pair whose chosen answer is more likely than not the better one."""
    for pair in export.pairs():
        if pair.p_chosen > 0.5:
            row = preference(pair, export.constitution)
            yield export.split(pair.prompt), row | {"margin": margin(pair.p_chosen)}


FORMAT = Format(
    rows=rows,
    columns={**PREFERENCE, "margin": "float"},
    about="preference pairs with a margin for reward models",
    consumer="trl.RewardTrainer; openrlhf --prompt_key prompt --chosen_key chosen --rejected_key rejected",
    file="jsonl",
)
