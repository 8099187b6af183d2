"""Draws the next token of each row, from the row's own chance and nothing else's.

One uniform number a token, read off the cumulative distribution: a row's draw is a function of its logits, its
settings and its seed, whoever shares the batch.

Left out on purpose: top-k, min-p, penalties. They are not in a recipe, so nothing here may depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cai.core.types import Sampling


def sample_tokens(logits: Tensor, rows: Sequence[tuple[Sampling, float]]) -> Tensor:
    """Token ids `[R]` from `logits` `[R, V]`; each row comes with its settings and its uniform number in [0, 1)."""
    ids = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    greedy = [row for row, (how, _) in enumerate(rows) if how.temperature == 0]
    nucleus = [row for row, (how, _) in enumerate(rows) if how.temperature > 0 and how.top_p < 1]
    others = [row for row, (how, _) in enumerate(rows) if how.temperature > 0 and how.top_p >= 1]
    if greedy:
        ids[greedy] = logits[greedy].argmax(-1)
    if nucleus:
        top_p = _column([rows[row][0].top_p for row in nucleus], logits)
        ids[nucleus] = _from_nucleus(*_heated(logits, rows, nucleus), top_p)
    if others:
        ids[others] = _from_all(*_heated(logits, rows, others))
    return ids


def _heated(logits: Tensor, rows: Sequence[tuple[Sampling, float]], chosen: list[int]) -> tuple[Tensor, Tensor]:
    """Probabilities at each chosen row's temperature, and its uniform number."""
    heat = _column([rows[row][0].temperature for row in chosen], logits)
    return torch.softmax(logits[chosen].div_(heat), -1), _column([rows[row][1] for row in chosen], logits)


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability `[R]` of each row's token, under the model itself: before temperature and top-p."""
    # not logsumexp: the sum of a lone row is split between threads, and its last bits would follow the batch
    return torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _from_all(probs: Tensor, uniform: Tensor) -> Tensor:
    """The first token whose cumulative probability passes the row's number. Overwrites `probs`."""
    total = probs.cumsum_(-1)  # in place: fresh memory of this size costs more than the sum
    whole = total[:, -1:]
    # 0.99999999 rounds to 1 in 32 bits: stay below the whole, or a token of no probability is drawn
    below = torch.minimum(uniform * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    # clamped: numbers that overflowed lie past every total, and are told apart from an answer by their log-probability
    return torch.searchsorted(total, below, right=True)[:, 0].clamp_max_(probs.shape[-1] - 1)


def _from_nucleus(probs: Tensor, uniform: Tensor, top_p: Tensor, size: int = 256) -> Tensor:
    """The same among the likeliest tokens that together hold `top_p`; a row sorts no more than about that many."""
    best, ids = probs.topk(min(size, probs.shape[-1]))
    total = best.cumsum(-1)
    kept = best * (total - best < top_p)  # a token is in while the ones before it do not hold top_p yet
    drawn = ids.gather(-1, _from_all(kept, uniform)[:, None])[:, 0]
    lacking = total[:, -1] < top_p[:, 0]
    if size < probs.shape[-1] and bool(lacking.any()):
        drawn[lacking] = _from_nucleus(probs[lacking], uniform[lacking], top_p[lacking], size * 8)
    return drawn
