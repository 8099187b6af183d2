"""The formulas of PPO, on tensors of B answers of T tokens, with a mask that is 1 on the tokens of an answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def mean(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the masked tokens."""
    return (x_BT * mask_BT).sum() / mask_BT.sum().clamp_min(1)


def whitened(x_BT: Tensor, mask_BT: Tensor, *, centre: bool = True) -> Tensor:
    """`x` with standard deviation 1 over the masked tokens, and mean 0, or its own mean where `centre` is off."""
    middle = mean(x_BT, mask_BT)
    spread = mean((x_BT - middle) ** 2, mask_BT)
    white = (x_BT - middle) * torch.rsqrt(spread + 1e-8)
    return (white if centre else white + middle) * mask_BT


def token_rewards(scores_B: Tensor, logratio_BT: Tensor, mask_BT: Tensor, coefficient: float) -> Tensor:
    """-coefficient * log(p / p_ref) at each token, plus the score at the last token (1909.08593, equation 2)."""
    rewards_BT = -coefficient * logratio_BT * mask_BT
    last_B = (mask_BT.cumsum(1) * mask_BT).argmax(1)
    scored_B = scores_B * mask_BT.any(1)
    return rewards_BT.scatter_add(1, last_B[:, None], scored_B[:, None].to(rewards_BT.dtype))


def advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, decay: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns (Schulman et al., arXiv 1506.02438, equation 16); 0 outside the mask.

    A mask is a run of ones from the left, so that the value after an answer's last token is 0.
    """
    values_BT = values_BT * mask_BT
    advantage_B = torch.zeros_like(values_BT[:, 0])
    columns = []
    for t in reversed(range(values_BT.shape[1])):
        after_B = values_BT[:, t + 1] if t + 1 < values_BT.shape[1] else torch.zeros_like(advantage_B)
        delta_B = rewards_BT[:, t] + gamma * after_B - values_BT[:, t]
        advantage_B = (delta_B + gamma * decay * advantage_B) * mask_BT[:, t]
        columns.append(advantage_B)
    found_BT = torch.stack(columns[::-1], 1)
    return found_BT, (found_BT + values_BT) * mask_BT


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums over masked tokens, so that minibatches of any size add up to the same."""

    policy: Tensor
    value: Tensor
    clipped: Tensor
    """Number of tokens with a clipped ratio."""
    approx_kl: Tensor
    """KL from the policy that sampled: sum of (ratio - 1) - log ratio."""


def ppo_losses(
    now_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: float,
    values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, value_clip: float,
) -> Losses:  # fmt: skip
    """Clipped policy and value losses (Schulman et al., arXiv 1707.06347, equations 7 and 9)."""
    logratio_BT = (now_BT - old_BT) * mask_BT
    ratio_BT = logratio_BT.exp()
    unclipped_BT = -advantages_BT * ratio_BT
    clipped_BT = -advantages_BT * ratio_BT.clamp(1 - clip, 1 + clip)
    clipped_values_BT = old_values_BT + (values_BT - old_values_BT).clamp(-value_clip, value_clip)
    error_BT = torch.maximum((values_BT - returns_BT) ** 2, (clipped_values_BT - returns_BT) ** 2)
    return Losses(
        policy=(torch.maximum(unclipped_BT, clipped_BT) * mask_BT).sum(),
        value=(0.5 * error_BT * mask_BT).sum(),
        clipped=((clipped_BT > unclipped_BT) * mask_BT).sum().detach(),
        approx_kl=((ratio_BT - 1 - logratio_BT) * mask_BT).sum().detach(),
    )
