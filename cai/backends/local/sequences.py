"""The seam between scheduling requests and computing a model: rows that are fed tokens, side by side.

Left out on purpose: how rows are kept in memory; `_ragged` and `_serial` each have their own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor


@dataclass(slots=True, eq=False)
class Row:
    """One sequence that is being computed."""

    done: list[int]
    """The tokens computed so far."""

    def rewind(self, length: int) -> None:
        """Go back to the first `length` of them; others may follow."""
        del self.done[length:]


class Feed(NamedTuple):
    """The next tokens of a row, and for how many of the last of them the logits are wanted."""

    row: Any  # the Row that the same Rows opened
    ids: Sequence[int]
    wanted: int


class SequenceRunner(Protocol):
    """A model that computes rows. One thread uses it."""

    def open(self, prompt: Sequence[int], *, room: int, reusable: int) -> Row | None:
        """A row for `prompt` and `room` tokens after it; at most `reusable` of the prompt come from other rows.

        None: not now. There is no memory, or another row is just computing what this one begins with.
        """
        ...

    def close(self, row: Any, *, keep: bool = True) -> None:
        """The row is finished. `keep`: what it computed is good, and may serve other rows."""
        ...

    def shrink(self) -> None:
        """Give back all memory that no running row needs."""
        ...

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Compute the feeds; the wanted logits `[sum of wanted, V]`, in the order of the feeds."""
        ...
