"""Runs any causal language model of transformers, one row after another, with the model's own cache.

It is for models whose attention `ragged` cannot replace: sliding windows, linear attention, state spaces. Both have the
same interface, so scheduling and sampling are written once.

Left out on purpose: batches and prefix reuse, which would depend on the format of each model's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai.backends.local.sequences import Feed, Row


@dataclass(slots=True, eq=False)
class SerialRow(Row):
    """A row with the model's own cache."""

    cache: Any = None

    def rewind(self, length: int) -> None:
        """Go back. Not every model's cache can, so the whole row is computed again."""
        Row.rewind(self, length)
        self.cache = None


class Serial:
    """Computes rows one by one. One thread uses it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def open(self, prompt: Sequence[int], *, new_tokens: int, reusable: int) -> SerialRow:
        """A new row; never None."""
        return SerialRow([])

    def close(self, row: SerialRow, *, keep: bool = True) -> None:
        """The row is finished."""
        row.cache = None

    def shrink(self) -> None:
        """Nothing is kept beyond the running rows."""

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Compute the feeds; the wanted logits `[sum of wanted, V]`, in the order of the feeds."""
        return torch.cat([self._row(feed.row, feed.ids, feed.wanted) for feed in feeds])

    def _row(self, row: SerialRow, ids: Sequence[int], wanted: int) -> Tensor:
        # without a cache, the model computes the whole row again
        new = ids if row.cache is not None or not row.done else [*row.done, *ids]
        line = torch.tensor([list(new)], device=self._model.device)
        output = self._model(input_ids=line, past_key_values=row.cache, use_cache=True)
        row.cache = getattr(output, "past_key_values", None)
        row.done.extend(ids)
        logits = output.logits[0]
        return torch.as_tensor(logits[len(logits) - wanted :])
