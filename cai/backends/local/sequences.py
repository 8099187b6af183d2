"""The interface between the engine, which schedules requests, and what computes the model: `ragged` or `serial`.

A row is one token sequence in the batch. `ragged` and `serial` keep rows in memory in different ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor


@dataclass(slots=True, eq=False)
class Row:
    """One sequence that is being computed."""

    done: list[int]
    """The tokens computed so far."""

    def rewind(self, length: int) -> None:
        """Go back to the first `length` tokens; others may follow."""
        del self.done[length:]


class Feed(NamedTuple):
    """The next tokens of a row, and for how many of the last of them the logits are wanted."""

    row: Any  # a Row that the same SequenceRunner opened
    ids: Sequence[int]
    wanted: int


OpenRow = TypeVar("OpenRow", bound=Row)


class SequenceRunner(Protocol[OpenRow]):
    """Computes rows with a model. One thread uses it."""

    def open(self, prompt: Sequence[int], *, new_tokens: int, reusable: int) -> OpenRow | None:
        """A row for `prompt` and up to `new_tokens` after it; at most `reusable` tokens are copied from other rows.

        None: not now. There is no memory, or another row is computing the prefix of this one.
        """
        ...

    def close(self, row: OpenRow, *, keep: bool = True) -> None:
        """The row is finished. `keep`: its keys and values are valid, and other rows may reuse them."""
        ...

    def shrink(self) -> None:
        """Free all memory that no running row needs."""
        ...

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Compute the feeds; the wanted logits `[sum of wanted, V]`, in the order of the feeds."""
        ...
