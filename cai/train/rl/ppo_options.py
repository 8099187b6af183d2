"""Options of PPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cai.train.rl.options import OnlineOptions


class Options(OnlineOptions):
    """A step samples `rollouts` answers and makes `passes` passes over them, `batch_size * accumulate` an update."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    rollouts: Annotated[int, Field(ge=1)] = 32
    """Answers sampled in one step."""
    passes: Annotated[int, Field(ge=1)] = 4
    """Passes over the answers of one step."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Clip range of the probability ratio."""
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    value_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the value loss."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount factor per token."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Lambda of generalised advantage estimation."""
    whiten_rewards: bool = False
    """Divide the rewards of a step, KL penalty included, by their standard deviation."""
    whiten_advantages: bool = True
    target_kl: Annotated[float, Field(gt=0)] | None = None
    """End the passes of a step at this KL from the policy that sampled, in nats per token. Not `kl_target`."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
