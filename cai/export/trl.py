"""Preference pairs for TRL: conversational, with an explicit prompt, so that no trainer has to guess its end.

`chosen` and `rejected` hold the answer alone; DPOTrainer and RewardTrainer take the rows as they are. `p_chosen` is the
unrounded label; TRL's own trainers ignore it, and `cai train` uses it.

Left out on purpose: `margin`. RewardTrainer would train on a column of that name without being asked to; see `reward`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.core.plugin_types import Export, Format
from cai.export.columns.row import PREFERENCE, Row, preference


def rows(export: Export) -> Iterator[tuple[str, Row]]:
    """One row for each pair, in the run's order."""
    for pair in export.pairs():
        yield export.split(pair.prompt), preference(pair, export.constitution)


FORMAT = Format(
    rows=rows,
    columns=PREFERENCE,
    about="preference pairs, conversational",
    consumer="trl.DPOTrainer, trl.RewardTrainer",
)
