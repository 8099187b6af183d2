"""Where keys and values lie: shelves of slots for running rows, and a store of prefixes that finished rows left.

A shelf holds rows of about the same length, so that one product serves them all without much padding. Keys and values
lie as `[slots, heads, length, dim]`.

Left out on purpose: pages. A gather in front of every product costs more on a CPU than the memory it saves.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

BLOCK = 64
"""Key ranges are rounded up to this: the order of a row's sums is then the same in any company."""

Ids = npt.NDArray[np.int32]
Layers = dict[int, tuple[Tensor, Tensor]]
"""Layer -> keys and values, of a whole shelf or of one row."""


class KVCache:
    """Slots for rows of up to `capacity` tokens; the lowest free slot is taken first, so that they stay dense.

    Memory is as long as the longest row needs by now, in whole blocks, and no longer: oneDNN multiplies only dense
    stacks of matrices and would copy any other in every step. It grows layer by layer as each is computed, so that a
    growth that fails half way leaves nothing broken.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._slots = 0
        self._layers: Layers = {}
        self._free: list[int] = []

    @property
    def busy(self) -> int:
        """How many slots hold a running row."""
        return self._slots - len(self._free)

    @property
    def token_bytes(self) -> int:
        """Memory of one token of one row; 0 before anything was computed here."""
        halves = [half for layer in self._layers.values() for half in layer]
        return sum(half.shape[1] * half.shape[3] * half.element_size() for half in halves)

    def reserved(self, more: int = 0) -> int:
        """Tokens that fit once every slot, and `more` slots, are as long as they may become."""
        return (self._slots + more) * self.capacity

    def growth(self, most: int) -> int:
        """How many slots the next `take` would add: none while one is free, else as many again up to `most`."""
        return 0 if self._free else max(1, min(max(4, self._slots), most - self._slots))

    def take(self, most: int) -> int:
        """A free slot, made if need be."""
        if more := self.growth(most):
            self._free = list(range(self._slots, self._slots + more))
            self._slots += more
        return heapq.heappop(self._free)

    def give_back(self, slot: int) -> None:
        """The slot is free again; what lies in it is stale, but finite, as the masked places of a product must be."""
        heapq.heappush(self._free, slot)

    def reach(self, length: int) -> None:
        """Be long enough for rows of `length` tokens."""
        self.length = max(self.length, whole_blocks(length))

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of one layer, made or grown if need be, for `key` and `value` `[1, H, T, D]`."""
        keys, values = self._layers.get(index, (key[:, :, :0], value[:, :, :0]))
        if keys.shape[0] < self._slots or keys.shape[2] < self.length:
            keys, values = self._layers[index] = self._grown(keys), self._grown(values)
        return keys, values

    def part(self, slot: int, length: int) -> Layers:
        """Views of the first `length` tokens of a slot that has computed them."""
        return {
            layer: (keys[slot, :, :length], values[slot, :, :length]) for layer, (keys, values) in self._layers.items()
        }

    def wipe(self, slot: int) -> None:
        """Zero a slot: what lies in it may be no numbers."""
        for half in (half for layer in self._layers.values() for half in layer):
            half[slot : slot + 1] = 0  # a range: the slot of a row that was never computed may not exist yet

    def _grown(self, old: Tensor) -> Tensor:
        new = old.new_zeros(self._slots, old.shape[1], self.length, old.shape[3])
        new[: old.shape[0], :, : old.shape[2]] = old
        return new


def whole_blocks(length: int) -> int:
    """`length` rounded up to whole blocks of keys."""
    return -(-length // BLOCK) * BLOCK


@dataclass(frozen=True, slots=True)
class CacheSlot:
    """One row's place on a shelf."""

    shelf: KVCache
    index: int

    def part(self, length: int) -> Layers:
        """Views of the first `length` tokens' keys and values."""
        return self.shelf.part(self.index, length)

    def copy_from(self, source: Layers, length: int) -> None:
        """Take over the first `length` tokens of another row."""
        self.shelf.reach(length)
        for layer, (keys, values) in source.items():
            for mine, theirs in zip(self.shelf.layer(layer, keys[None], values[None]), (keys, values), strict=True):
                mine[self.index, :, :length] = theirs[:, :length]


WORTH_KEEPING = 64
"""Tokens; a finished row with fewer that no kept row begins with is forgotten: its copy costs more than they do."""


class PrefixCache:
    """Keys and values of finished rows, the least recently useful dropped first once `budget` bytes are full."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._rows: list[tuple[Ids, Layers, int]] = []

    def add(self, ids: Ids, part: Layers) -> None:
        """Keep a copy of a row that brings something new; what it begins with need not be kept twice."""
        size = sum(half.nbytes for layer in part.values() for half in layer)
        if size > self._budget or self.longest(ids)[0] > len(ids) - WORTH_KEEPING:
            return
        self._rows = [row for row in self._rows if shared_prefix(row[0], ids) < len(row[0])]
        while self._rows and size + sum(row[2] for row in self._rows) > self._budget:
            self._rows.pop(0)
        self._rows.append((ids, {layer: (k.clone(), v.clone()) for layer, (k, v) in part.items()}, size))

    def longest(self, ids: Ids) -> tuple[int, Layers]:
        """How many of the first `ids` some kept row begins with, and that row."""
        if not self._rows:
            return 0, {}
        length, best = max((shared_prefix(row[0], ids), place) for place, row in enumerate(self._rows))
        if length:
            self._rows.append(self._rows.pop(best))
        return length, self._rows[-1][1]

    def clear(self) -> None:
        """Forget everything, to make room."""
        self._rows.clear()


def shared_prefix(one: Ids, other: Ids) -> int:
    """How many tokens two rows have in common from the start."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def as_ids(tokens: Sequence[int]) -> Ids:
    """Token ids as an array that compares fast."""
    return np.asarray(tokens, dtype=np.int32)
