"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347) with a KL penalty to a reference model (1909.08593).

TRL no longer has PPO, so it is implemented here: a policy with a value head, a frozen reference model, generalised
advantage estimation and clipped losses. Dropout is off, so that the policy that is updated is the one that sampled.
"""

from __future__ import annotations

from collections.abc import Mapping

from cai.core.plugin_types import Job, Method
from cai.train.rl.ppo_options import Options


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train the policy on its own answers. Raises Mistake; KeyboardInterrupt after a checkpoint."""
    from cai.train.rl.ppo_loop import train_ppo

    return train_ppo(job, options)


METHOD = Method(
    rows="prompts",
    options=Options,
    train=train,
    about="prompts and a reward in, policy out; value head, clipped steps, adaptive KL",
)
