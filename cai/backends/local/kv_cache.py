"""The KV cache: slots for running rows of about the same length, and prefixes kept from finished rows.

All rows in one KVCache have about the same length, so that one product computes them without much padding. Keys and
values are stored as `[slots, heads, length, dim]`.

Left out on purpose: paged attention. On a CPU, a gather before every product takes more time than the memory is worth.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

BLOCK = 64
"""Key ranges are rounded up to this: the order of a row's sums then does not depend on the other rows."""

Ids = npt.NDArray[np.int32]
Layers = dict[int, tuple[Tensor, Tensor]]
"""Layer -> keys and values, of a whole KVCache or of one row."""


class KVCache:
    """Slots for rows of up to `capacity` tokens. The lowest free slot is taken first, so that used slots stay dense.

    The tensors are as long as the longest row needs so far, in whole blocks: oneDNN multiplies only dense stacks of
    matrices and would copy any others in every step. They grow layer by layer as each is computed, so that running out
    of memory half way leaves valid tensors.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._slots = 0
        self._layers: Layers = {}
        self._free: list[int] = []

    @property
    def busy(self) -> int:
        """How many slots have a running row."""
        return self._slots - len(self._free)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token of one row; 0 before the first step."""
        halves = [half for layer in self._layers.values() for half in layer]
        return sum(half.shape[1] * half.shape[3] * half.element_size() for half in halves)

    def reserved(self, more: int = 0) -> int:
        """Tokens of all slots, and of `more` slots, at full capacity."""
        return (self._slots + more) * self.capacity

    def growth(self, most: int) -> int:
        """How many slots the next `take` would add: 0 if one is free, else as many as there are, up to `most`."""
        return 0 if self._free else max(1, min(max(4, self._slots), most - self._slots))

    def take(self, most: int) -> int:
        """A free slot, added if necessary."""
        if more := self.growth(most):
            self._free = list(range(self._slots, self._slots + more))
            self._slots += more
        return heapq.heappop(self._free)

    def free(self, slot: int) -> None:
        """Free the slot. Its numbers are stale but finite, as masked places of a product must be."""
        heapq.heappush(self._free, slot)

    def reserve_length(self, length: int) -> None:
        """Make sure that rows of `length` tokens fit."""
        self.length = max(self.length, whole_blocks(length))

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of one layer, allocated or grown if necessary, for `key` and `value` `[1, H, T, D]`."""
        keys, values = self._layers.get(index, (key[:, :, :0], value[:, :, :0]))
        if keys.shape[0] < self._slots or keys.shape[2] < self.length:
            keys, values = self._layers[index] = self._grown(keys), self._grown(values)
        return keys, values

    def part(self, slot: int, length: int) -> Layers:
        """Views of the first `length` tokens of a slot, which must be computed."""
        return {
            layer: (keys[slot, :, :length], values[slot, :, :length]) for layer, (keys, values) in self._layers.items()
        }

    def wipe(self, slot: int) -> None:
        """Set a slot to zero: it may contain NaNs."""
        for half in (half for layer in self._layers.values() for half in layer):
            half[slot : slot + 1] = 0  # a slice: the slot of a row that was never computed may not be allocated yet

    def _grown(self, old: Tensor) -> Tensor:
        new = old.new_zeros(self._slots, old.shape[1], self.length, old.shape[3])
        new[: old.shape[0], :, : old.shape[2]] = old
        return new


def whole_blocks(length: int) -> int:
    """`length` rounded up to whole blocks of keys."""
    return -(-length // BLOCK) * BLOCK


@dataclass(frozen=True, slots=True)
class CacheSlot:
    """One row's place in a KVCache."""

    cache: KVCache
    index: int

    def part(self, length: int) -> Layers:
        """Views of the first `length` tokens' keys and values."""
        return self.cache.part(self.index, length)

    def copy_from(self, source: Layers, length: int) -> None:
        """Copy the first `length` tokens of another row."""
        self.cache.reserve_length(length)
        for layer, (keys, values) in source.items():
            for mine, theirs in zip(self.cache.layer(layer, keys[None], values[None]), (keys, values), strict=True):
                mine[self.index, :, :length] = theirs[:, :length]


WORTH_KEEPING = 64
"""Tokens; a finished row that adds fewer to the kept prefixes is dropped: copying it costs more than computing them."""


class PrefixCache:
    """Keys and values of finished rows; above `budget` bytes, the least recently used are dropped."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._rows: list[tuple[Ids, Layers, int]] = []

    def add(self, ids: Ids, part: Layers) -> None:
        """Keep a copy of a row with a new prefix, and drop kept rows that are a prefix of it."""
        size = sum(half.nbytes for layer in part.values() for half in layer)
        if size > self._budget or self.longest(ids)[0] > len(ids) - WORTH_KEEPING:
            return
        self._rows = [row for row in self._rows if shared_prefix(row[0], ids) < len(row[0])]
        while self._rows and size + sum(row[2] for row in self._rows) > self._budget:
            self._rows.pop(0)
        self._rows.append((ids, {layer: (k.clone(), v.clone()) for layer, (k, v) in part.items()}, size))

    def longest(self, ids: Ids) -> tuple[int, Layers]:
        """The longest common prefix of `ids` and a kept row, and that row."""
        if not self._rows:
            return 0, {}
        length, best = max((shared_prefix(row[0], ids), place) for place, row in enumerate(self._rows))
        if length:
            self._rows.append(self._rows.pop(best))
        return length, self._rows[-1][1]

    def clear(self) -> None:
        """Drop everything, to free memory."""
        self._rows.clear()


def shared_prefix(one: Ids, other: Ids) -> int:
    """The length of the common prefix of two rows."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def as_ids(tokens: Sequence[int]) -> Ids:
    """Token ids as an array, which compares fast."""
    return np.asarray(tokens, dtype=np.int32)
