"""What a person can set for PPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cai.train.rl.options import Online


class Options(Online):
    """A step samples `rollouts` answers and learns from them `passes` times, `batch_size * accumulate` at a time."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    rollouts: Annotated[int, Field(ge=1)] = 32
    """Answers of one step."""
    passes: Annotated[int, Field(ge=1)] = 4
    """How often the answers of one step are learned from."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """A token's probability is moved no further than this share from what it was when it was sampled."""
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    value_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the value head's loss beside the policy's."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount of a token."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Lambda of generalised advantage estimation."""
    whiten_rewards: bool = False
    """Divide the rewards of a step by their deviation, KL and all."""
    whiten_advantages: bool = True
    target_kl: Annotated[float, Field(gt=0)] | None = None
    """Leave the passes of a step once the policy is so many nats a token from where it sampled. Not `kl_target`."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
