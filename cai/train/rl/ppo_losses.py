"""The formulas of PPO, on tensors of answers: B sequences of T tokens, and a mask that is 1 on the tokens of an answer.

Left out on purpose: models. Everything here can be computed again by hand, and the tests do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def mean(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the masked tokens."""
    return (x_BT * mask_BT).sum() / mask_BT.sum().clamp_min(1)


def whitened(x_BT: Tensor, mask_BT: Tensor, *, centre: bool = True) -> Tensor:
    """`x` with deviation 1 over the masked tokens, and mean 0, or its own mean where `centre` is off."""
    middle = mean(x_BT, mask_BT)
    spread = mean((x_BT - middle) ** 2, mask_BT)
    white = (x_BT - middle) * torch.rsqrt(spread + 1e-8)
    return (white if centre else white + middle) * mask_BT


def token_rewards(scores_B: Tensor, logratio_BT: Tensor, mask_BT: Tensor, coefficient: float) -> Tensor:
    """-coefficient * log(p / p_start) at each token, and the score at an answer's last (1909.08593, equation 2)."""
    rewards_BT = -coefficient * logratio_BT * mask_BT
    last_B = (mask_BT.cumsum(1) * mask_BT).argmax(1)
    scored_B = scores_B * mask_BT.any(1)
    return rewards_BT.scatter_add(1, last_B[:, None], scored_B[:, None].to(rewards_BT.dtype))


def advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, decay: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns (Schulman et al., arXiv 1506.02438, equation 16); 0 off the mask.

    A mask is a run of ones from the left, so that what follows an answer's last token is worth nothing.
    """
    values_BT = values_BT * mask_BT
    ahead_B = torch.zeros_like(values_BT[:, 0])
    columns = []
    for t in reversed(range(values_BT.shape[1])):
        after_B = values_BT[:, t + 1] if t + 1 < values_BT.shape[1] else torch.zeros_like(ahead_B)
        surprise_B = rewards_BT[:, t] + gamma * after_B - values_BT[:, t]
        ahead_B = (surprise_B + gamma * decay * ahead_B) * mask_BT[:, t]
        columns.append(ahead_B)
    found_BT = torch.stack(columns[::-1], 1)
    return found_BT, (found_BT + values_BT) * mask_BT


@dataclass(frozen=True, slots=True)
class Losses:
    """Of some tokens: sums over the mask, so that minibatches of any size add up to the same."""

    policy: Tensor
    value: Tensor
    clipped: Tensor
    """Tokens whose ratio was beyond the clip on the side that the advantage pushes to."""
    approx_kl: Tensor
    """How far the policy has moved since it sampled: sum of (ratio - 1) - log ratio."""


def ppo_losses(
    now_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: float,
    values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, value_clip: float,
) -> Losses:  # fmt: skip
    """Clipped policy and value losses (Schulman et al., arXiv 1707.06347, equations 7 and 9)."""
    moved_BT = (now_BT - old_BT) * mask_BT
    ratio_BT = moved_BT.exp()
    plain_BT = -advantages_BT * ratio_BT
    held_BT = -advantages_BT * ratio_BT.clamp(1 - clip, 1 + clip)
    near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-value_clip, value_clip)
    wrong_BT = torch.maximum((values_BT - returns_BT) ** 2, (near_BT - returns_BT) ** 2)
    return Losses(
        policy=(torch.maximum(plain_BT, held_BT) * mask_BT).sum(),
        value=(0.5 * wrong_BT * mask_BT).sum(),
        clipped=((held_BT > plain_BT) * mask_BT).sum().detach(),
        approx_kl=((ratio_BT - 1 - moved_BT) * mask_BT).sum().detach(),
    )
