"""Runs a language model over many rows of different lengths at once, without padding and without copies between steps.

The new tokens of all rows, of prompts and answers, go through the model as one flat sequence `[1, T]`; only attention
separates the rows. That attention function is registered with transformers, so every model there whose attention can be
replaced works unchanged. Keys and values are in KV caches for rows of about the same length, and a row with the same
prefix as another, running or finished, copies that row's keys and values.

Every sum is in an order that does not depend on the other rows of the batch: products have at least four rows (below
that, BLAS libraries use other kernels), key ranges are whole blocks, and masked places add exact zeros. On CPUs a row's
numbers are therefore the same to the last bit, alone or in a batch.

Left out on purpose: sliding windows, linear attention, ALiBi and the like; `serial` runs those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface

from cai.backends.local.kv_cache import (
    BLOCK,
    CacheSlot,
    Ids,
    KVCache,
    Layers,
    PrefixCache,
    as_ids,
    shared_prefix,
    whole_blocks,
)
from cai.backends.local.sequences import Feed, Row

MULTIPLE = 8
"""Flat sequences are padded to a multiple of this many tokens."""
SUM = 2 * BLOCK
"""The longest sum over keys in one call of MKL."""
REUSE_AT_LEAST = 8
"""Tokens; a shorter common prefix is computed faster than it is looked up and copied."""
WORTH_WAITING = 64
"""Tokens; a new row waits if another row is about to compute at least this many of its first tokens."""
ATTENTION = "cai_ragged"


@dataclass(slots=True, eq=False)
class RaggedRow(Row):
    """A row, the place of its keys and values, and the prompt that it computes."""

    slot: CacheSlot
    prompt: Ids


class Ragged:
    """A model and the KV caches of its rows. One thread uses it."""

    def __init__(self, model: Any, *, rows: int, prefix_bytes: int, memory_bytes: int) -> None:
        """`rows`: the most at once; `prefix_bytes`: for prefixes of finished rows, 0 turns all reuse off."""
        model.set_attn_implementation(ATTENTION)
        self._model = model
        self._most = rows
        self._memory_bytes = memory_bytes
        self._prefixes = PrefixCache(prefix_bytes) if prefix_bytes else None
        self._caches: dict[int, KVCache] = {}
        self._rows: list[RaggedRow] = []

    def open(self, prompt: Sequence[int], *, new_tokens: int, reusable: int) -> RaggedRow | None:
        """A row for `prompt` and up to `new_tokens` after it; at most `reusable` tokens are copied from other rows.

        None: not now. There is no memory, or another row is computing the prefix of this one.
        """
        ids = as_ids(prompt)
        length, source = self._longest(ids[:reusable])
        if self._is_coming(ids[:reusable], length):
            return None
        slot = self._place(len(ids) + new_tokens)
        if slot is None:
            return None
        if length >= REUSE_AT_LEAST:
            try:
                slot.copy_from(source, length)
            except RuntimeError:  # out of memory: the caller frees some and tries again
                slot.cache.free(slot.index)
                raise
        row = RaggedRow(ids[:length].tolist() if length >= REUSE_AT_LEAST else [], slot, ids)
        self._rows.append(row)
        return row

    def close(self, row: RaggedRow, *, keep: bool = True) -> None:
        """The row is finished; with `keep`, its keys and values are kept for other rows while there is memory."""
        self._rows.remove(row)
        if not keep:
            row.slot.cache.wipe(row.slot.index)
        elif self._prefixes and row.done:
            self._prefixes.add(as_ids(row.done), row.slot.part(len(row.done)))
        row.slot.cache.free(row.slot.index)

    def shrink(self) -> None:
        """Free all memory that no running row needs."""
        if self._prefixes:
            self._prefixes.clear()
        self._caches = {capacity: cache for capacity, cache in self._caches.items() if cache.busy}

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Compute the feeds; the wanted logits `[sum of wanted, V]`, in the order of the feeds."""
        plan = _Plan.of(feeds, self._model.device, self._model.dtype)
        logits = self._model(
            input_ids=plan.ids[None],
            position_ids=plan.positions[None],
            logits_to_keep=plan.wanted,
            use_cache=False,
            plan=plan,
        ).logits[0]
        for feed in feeds:
            feed.row.done.extend(feed.ids)
        return torch.as_tensor(logits[: sum(feed.wanted for feed in feeds)])

    def _longest(self, ids: Ids) -> tuple[int, Layers]:
        if not self._prefixes:
            return 0, {}
        length, source = self._prefixes.longest(ids)
        for row in self._rows:
            if (own := min(len(row.done), shared_prefix(row.prompt, ids))) > length:
                length, source = own, row.slot.part(own)
        return length, source

    def _is_coming(self, ids: Ids, length: int) -> bool:
        if not self._prefixes:
            return False
        return any(shared_prefix(row.prompt, ids) >= length + WORTH_WAITING for row in self._rows)

    def _place(self, length: int) -> CacheSlot | None:
        capacity = max(128, 1 << (length - 1).bit_length())
        cache = self._caches.setdefault(capacity, KVCache(capacity))
        if self._rows and self._bytes_with(cache) > self._memory_bytes:
            self._caches = {size: other for size, other in self._caches.items() if other.busy or other is cache}
            if self._bytes_with(cache) > self._memory_bytes:
                return None
        return CacheSlot(cache, cache.take(self._most))

    def _bytes_with(self, cache: KVCache) -> int:
        """Bytes that all caches may need once `cache` has a free slot."""
        a_token = max(other.token_bytes for other in self._caches.values())
        growth = cache.growth(self._most)
        return a_token * sum(other.reserved(growth if other is cache else 0) for other in self._caches.values())


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one cache with one new token each: `flat` is their range, the rest has an entry per row."""

    cache: KVCache
    flat: slice
    slots: Tensor
    positions: Tensor
    extent: int
    mask: Tensor
    """`[extent, 1, L]`, added to scores."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Several new tokens of one row; each block is a range of the sequence and the mask `[1, n, L]` of its queries."""

    slot: CacheSlot
    flat: slice
    start: int
    blocks: tuple[tuple[slice, Tensor], ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The layout of one flat sequence of tokens."""

    ids: Tensor
    positions: Tensor
    wanted: Tensor
    groups: tuple[_Group, ...]
    spans: tuple[_Span, ...]

    @classmethod
    def of(cls, feeds: Sequence[Feed], device: torch.device, dtype: torch.dtype) -> _Plan:
        """Lay out the sequence: single tokens first, by cache and slot, then the longer spans."""
        order = sorted(range(len(feeds)), key=lambda place: _flat_order(feeds[place]))
        for feed in feeds:
            feed.row.slot.cache.reserve_length(len(feed.row.done) + len(feed.ids))
        ids: list[int] = []
        positions: list[int] = []
        wanted: dict[int, range] = {}
        singles: dict[KVCache, list[int]] = {}
        spans = []
        for place in order:
            feed, start = feeds[place], len(ids)
            ids += feed.ids
            positions += range(len(feed.row.done), len(feed.row.done) + len(feed.ids))
            wanted[place] = range(len(ids) - feed.wanted, len(ids))
            if len(feed.ids) == 1:
                singles.setdefault(feed.row.slot.cache, []).append(place)
            else:
                spans.append(_span(feed, start, device, dtype))
        groups = []
        start = 0
        for cache, places in singles.items():
            groups.append(_group(cache, [feeds[place].row for place in places], start, device, dtype))
            start += len(places)
        keep = [at for place in range(len(feeds)) for at in wanted[place]]
        return cls(_flat(ids, device), _flat(positions, device), _flat(keep, device), tuple(groups), tuple(spans))


def _flat_order(feed: Feed) -> tuple[bool, int, int]:
    return len(feed.ids) > 1, feed.row.slot.cache.capacity, feed.row.slot.index


def _flat(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values + [0] * (-len(values) % MULTIPLE or (0 if values else MULTIPLE)), device=device)


def _group(cache: KVCache, rows: Sequence[RaggedRow], start: int, device: torch.device, dtype: torch.dtype) -> _Group:
    slots = [row.slot.index for row in rows]
    positions = [len(row.done) for row in rows]
    extent = slots[-1] + 1
    # slots without a new token are computed too and discarded; one visible key keeps their numbers finite
    visible = torch.ones(extent, dtype=torch.long)
    visible[slots] = torch.tensor(positions) + 1
    mask = _mask(visible, cache.length, device, dtype)[:, None]
    flat = slice(start, start + len(rows))
    return _Group(cache, flat, torch.tensor(slots, device=device), torch.tensor(positions, device=device), extent, mask)


def _span(feed: Feed, start: int, device: torch.device, dtype: torch.dtype) -> _Span:
    first, count = len(feed.row.done), len(feed.ids)
    blocks = []
    for at in range(0, count, BLOCK):
        end = min(at + BLOCK, count)
        mask = _mask(torch.arange(first + at, first + end) + 1, whole_blocks(first + end), device, dtype)[None]
        blocks.append((slice(start + at, start + end), mask))
    return _Span(feed.row.slot, slice(start, start + count), first, tuple(blocks))


def _mask(visible: Tensor, length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`[n, length]`: zero for the first `visible` keys of each of n queries, minus infinity after."""
    keys = torch.arange(length)
    return torch.where(keys < visible[:, None], 0.0, float("-inf")).to(device, dtype)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    plan: _Plan | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention `[1, heads, T, D] -> [1, T, heads, D]` within the rows of `plan`."""
    unknown = [name for name in ("sliding_window", "softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if plan is None or attention_mask is not None or unknown:
        raise NotImplementedError(f"attention with {unknown or 'a mask'} is not supported in a ragged batch")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    answer = query.new_zeros(query.shape[2], query.shape[1], value.shape[-1])
    for group in plan.groups:
        keys, values = group.cache.layer(module.layer_idx, key, value)
        keys[group.slots, :, group.positions] = key[0, :, group.flat].transpose(0, 1)
        values[group.slots, :, group.positions] = value[0, :, group.flat].transpose(0, 1)
        answer[group.flat] = _decode(query[0, :, group.flat].transpose(0, 1), keys, values, group, scale)
    for span in plan.spans:
        keys, values = span.slot.cache.layer(module.layer_idx, key, value)
        end = span.start + span.flat.stop - span.flat.start
        keys[span.slot.index, :, span.start : end] = key[0, :, span.flat]
        values[span.slot.index, :, span.start : end] = value[0, :, span.flat]
        for flat, mask in span.blocks:
            answer[flat] = _prefill(query[0, :, flat], keys[span.slot.index], values[span.slot.index], mask, scale)
    return answer[None], None


def _decode(query_NHD: Tensor, keys: Tensor, values: Tensor, group: _Group, scale: float) -> Tensor:
    """One query per row against its own slot; queries that share a head's keys are one product."""
    count, heads, dim = query_NHD.shape
    shared = keys.shape[1]
    units, length = group.extent * shared, group.mask.shape[-1]
    if count < group.extent:
        spread = query_NHD.new_zeros(group.extent, heads, dim)
        spread[group.slots] = query_NHD
        query_NHD = spread
    answer = _attend(
        query_NHD.reshape(units, heads // shared, dim),
        keys[: group.extent].view(units, length, dim),
        values[: group.extent].view(units, length, -1),
        group.mask.expand(-1, shared, -1).reshape(units, 1, length),
        scale,
    ).reshape(group.extent, heads, -1)
    return answer[group.slots] if count < group.extent else answer


def _prefill(query_HND: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Consecutive queries of one row against its slot."""
    heads, count, dim = query_HND.shape
    shared, length = keys.shape[0], mask.shape[-1]
    answer = _attend(
        query_HND.reshape(shared, heads // shared * count, dim),
        keys[:, :length].contiguous(),
        values[:, :length],
        mask.repeat(1, heads // shared, 1),
        scale,
    )
    return answer.reshape(heads, count, -1).transpose(0, 1)


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`[U, M, D]` queries, `[U, L, D]` keys, `[U, L, D]` values, `[U | 1, M | 1, L]` mask -> `[U, M, D]`."""
    count = query.shape[1]
    if (missing := 4 - count) > 0:
        query = pad(query, (0, 0, 0, missing))
        mask = mask if mask.shape[1] == 1 else pad(mask, (0, 0, 0, missing))
    scores = torch.baddbmm(mask, query, keys.transpose(1, 2), alpha=scale)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(values.dtype)
    return _weighted_sum(weights, values)[:, :count]


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """`[U, M, L]` times `[U, L, D]`."""
    if weights.dtype != torch.float32 or weights.device.type != "cpu":
        return torch.bmm(weights, values)
    # MKL splits a long sum into parts whose size depends on its length; fixed parts keep the order
    answer = torch.bmm(weights[:, :, :SUM], values[:, :SUM])
    for start in range(SUM, weights.shape[2], SUM):
        answer = torch.baddbmm(answer, weights[:, :, start : start + SUM], values[:, start : start + SUM])
    return answer


AttentionInterface.register(ATTENTION, _attention)
