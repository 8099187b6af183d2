"""Where keys and values lie: shelves of slots for running rows, and a store of prefixes that finished rows left.

A shelf holds rows of about the same length, so that one product serves them all without much padding. Keys lie
transposed `[slots, heads, dim, capacity]`, values `[slots, heads, capacity, dim]`: as the two products of attention
read them.

Left out on purpose: pages. A gather in front of every product costs more on a CPU than the memory it saves.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Ids = npt.NDArray[np.int32]
Layers = dict[int, tuple[Tensor, Tensor]]
"""Layer -> keys and values, of a whole shelf or of one row."""


class Shelf:
    """Slots for rows of up to `capacity` tokens; the lowest free slot is taken first, so that they stay dense."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.layers: Layers = {}
        self._slots = 0
        self._free: list[int] = []

    @property
    def busy(self) -> int:
        """How many slots hold a running row."""
        return self._slots - len(self._free)

    @property
    def bytes(self) -> int:
        """Memory in use."""
        return sum(half.nbytes for layer in self.layers.values() for half in layer)

    @property
    def token_bytes(self) -> int:
        """Memory of one token of one row; 0 before anything was computed here."""
        return self.bytes // max(1, self._slots * self.capacity)

    def growth(self, most: int) -> int:
        """How many slots the next `take` would add: none while one is free, else as many again up to `most`."""
        return 0 if self._free else max(1, min(max(4, self._slots), most - self._slots))

    def take(self, most: int) -> int:
        """A free slot; allocates when there is none."""
        if more := self.growth(most):
            for index, (keys, values) in self.layers.items():
                self.layers[index] = _extended(keys, more), _extended(values, more)
            self._free = list(range(self._slots, self._slots + more))
            self._slots += more
        return heapq.heappop(self._free)

    def give_back(self, slot: int) -> None:
        """The slot is free again; what lies in it is stale, but finite, as the masked places of a product must be."""
        heapq.heappush(self._free, slot)

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The shelf's keys and values of one layer, made on first use for `key` and `value` `[1, H, T, D]`."""
        if index not in self.layers:
            keys = key.new_zeros(self._slots, key.shape[1], key.shape[3], self.capacity)
            values = value.new_zeros(self._slots, value.shape[1], self.capacity, value.shape[3])
            self.layers[index] = keys, values
        return self.layers[index]


def _extended(old: Tensor, more: int) -> Tensor:
    new = old.new_zeros(old.shape[0] + more, *old.shape[1:])
    new[: old.shape[0]] = old
    return new


@dataclass(frozen=True, slots=True)
class Slot:
    """One row's place on a shelf."""

    shelf: Shelf
    index: int

    def part(self, length: int) -> Layers:
        """Views of the first `length` tokens' keys and values."""
        return {
            layer: (keys[self.index, :, :, :length], values[self.index, :, :length])
            for layer, (keys, values) in self.shelf.layers.items()
        }

    def copy_from(self, source: Layers, length: int) -> None:
        """Take over the first `length` tokens of another row."""
        for layer, (keys, values) in source.items():
            mine = self.shelf.layer(layer, keys.transpose(1, 2)[None], values[None])
            mine[0][self.index, :, :, :length] = keys[:, :, :length]
            mine[1][self.index, :, :length] = values[:, :length]


class Store:
    """Keys and values of finished rows, the least recently useful dropped first once `budget` bytes are full."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._rows: list[tuple[Ids, Layers, int]] = []

    def add(self, ids: Ids, part: Layers) -> None:
        """Keep a copy of a row; what it begins with need not be kept twice."""
        size = sum(half.nbytes for layer in part.values() for half in layer)
        if size > self._budget:
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
