"""Samples the next token of each row from the row's own random numbers.

Each token takes one uniform number, looked up in the cumulative distribution. So a row's tokens are a function of its
logits, its settings and its seed, and do not depend on the other rows of the batch.

Left out on purpose: top-k, min-p and penalties, which a recipe does not have.
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
        ids[nucleus] = _from_nucleus(*_at_temperature(logits, rows, nucleus), top_p)
    if others:
        ids[others] = _from_all(*_at_temperature(logits, rows, others))
    return ids


def _at_temperature(logits: Tensor, rows: Sequence[tuple[Sampling, float]], chosen: list[int]) -> tuple[Tensor, Tensor]:
    """Probabilities at each chosen row's temperature, and its uniform number."""
    temperature = _column([rows[row][0].temperature for row in chosen], logits)
    return torch.softmax(logits[chosen].div_(temperature), -1), _column([rows[row][1] for row in chosen], logits)


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability `[R]` of each row's token, under the model itself: before temperature and top-p."""
    # not logsumexp: it splits the sum of a single row between threads, so its last bits would depend on the batch
    return torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _from_all(probs: Tensor, uniform: Tensor) -> Tensor:
    """The first token whose cumulative probability passes the row's number. Overwrites `probs`."""
    total = probs.cumsum_(-1)  # in place: allocating this much memory takes longer than the sum
    whole = total[:, -1:]
    # 0.99999999 rounds to 1 in 32 bits: stay below the sum, or a token with probability 0 is drawn
    below = torch.minimum(uniform * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    # clamped: with NaNs the index is past the end; the log-probability then shows that they are no answer
    return torch.searchsorted(total, below, right=True)[:, 0].clamp_max_(probs.shape[-1] - 1)


def _from_nucleus(probs: Tensor, uniform: Tensor, top_p: Tensor, size: int = 256) -> Tensor:
    """The same among the most likely tokens with `top_p` together; a row sorts about as many as it needs."""
    best, ids = probs.topk(min(size, probs.shape[-1]))
    total = best.cumsum(-1)
    kept = best * (total - best < top_p)  # a token is kept if the sum before it is below top_p
    drawn = ids.gather(-1, _from_all(kept, uniform)[:, None])[:, 0]
    incomplete = total[:, -1] < top_p[:, 0]
    if size < probs.shape[-1] and bool(incomplete.any()):
        drawn[incomplete] = _from_nucleus(probs[incomplete], uniform[incomplete], top_p[incomplete], size * 8)
    return drawn
