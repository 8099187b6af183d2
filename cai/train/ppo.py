"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347) with a price on leaving the start (1909.08593).

Our own, because TRL removed it: a policy with a value head, the frozen start, generalised advantages, clipped losses.

Left out on purpose: dropout, which would make the policy that learns another one than the policy that answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cai.core.plugin_types import Job, Method
from cai.train.rl.ppo_options import Options


def train(job: Job, options: Options) -> Mapping[str, Any]:
    """Learn from the policy's own answers. Raises Mistake; KeyboardInterrupt after a checkpoint."""
    from cai.train.rl.ppo_loop import train_ppo

    return train_ppo(job, options)


METHOD = Method(
    rows="prompts",
    options=Options,
    train=train,
    about="prompts and a reward in, policy out; value head, clipped steps, adaptive KL",
)
