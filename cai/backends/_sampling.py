"""Draws the next token of each row, from the row's own chance and nothing else's.

One uniform number a token, read off the cumulative distribution: a row's draw is a function of its logits, its
settings and its seed, whoever shares the batch.

Left out on purpose: top-k, min-p, penalties. They are not in a recipe, so nothing here may depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cai.types import Sampling


def draw(logits: Tensor, rows: Sequence[tuple[Sampling, float]]) -> Tensor:
    """Token ids `[R]` from `logits` `[R, V]`; each row comes with its settings and its uniform number in [0, 1)."""
    ids = logits.argmax(-1)
    for nucleus in (False, True):
        chosen = [row for row, (how, _) in enumerate(rows) if how.temperature > 0 and (how.top_p < 1) is nucleus]
        if chosen:
            heat = _column([rows[row][0].temperature for row in chosen], logits)
            uniform = _column([rows[row][1] for row in chosen], logits)
            top_p = _column([rows[row][0].top_p for row in chosen], logits)
            probs = torch.softmax(logits[chosen] / heat, -1)
            ids[chosen] = _from_nucleus(probs, uniform, top_p) if nucleus else _from_all(probs, uniform)
    return ids


def logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability `[R]` of each row's token, under the model itself: before temperature and top-p."""
    return logits.gather(-1, ids[:, None])[:, 0] - torch.logsumexp(logits, -1)


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _from_all(probs: Tensor, uniform: Tensor) -> Tensor:
    """The first token whose cumulative probability passes the row's number."""
    total = probs.cumsum(-1)
    whole = total[:, -1:]
    # 0.99999999 rounds to 1 in 32 bits: stay below the whole, or a token of no probability is drawn
    below = torch.minimum(uniform * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(total, below, right=True)[:, 0]


def _from_nucleus(probs: Tensor, uniform: Tensor, top_p: Tensor) -> Tensor:
    """The same among the likeliest tokens that together hold `top_p`; sorts no more of the vocabulary than that."""
    size = 256
    while True:
        size = min(size, probs.shape[-1])
        best, ids = probs.topk(size)
        total = best.cumsum(-1)
        if size == probs.shape[-1] or bool((total[:, -1:] >= top_p).all()):
            break
        size *= 8
    kept = (total - best) < top_p  # a token is in when the ones before it do not hold top_p yet
    return ids.gather(-1, _from_all(best * kept, uniform)[:, None])[:, 0]
