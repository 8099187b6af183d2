"""A reward model by soft-label Bradley-Terry: -p log s(d) - (1 - p) log s(-d), d the difference of the two rewards.

Length, list markup and preambles can be explained away: a logistic regression of the labels on their differences gives
the part that they predict; it is added to d during training, and the reward learns the rest. At p = 1 and with default
options this is TRL's own loss. An ensemble (Coste et al., 2023, arXiv 2310.02743) has one LoRA adapter for each member
on one backbone, each with its own seed and two thirds of the prompts.

Left out on purpose: several heads on one adapter; their disagreement was measured to be uninformative
(docs/training.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from cai.core.plugin_types import Job, Method
from cai.train.reward_model.options import Options


def trl(options: Options) -> Mapping[str, object]:
    """Fields of TRL's RewardConfig."""
    return {
        "max_length": options.max_length,
        "center_rewards_coefficient": options.center or None,
        "disable_dropout": True,
    }


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train a reward model: a number for one answer. Raises Mistake."""
    from cai.train.reward_model.train import train_reward

    return train_reward(job, options, trl(options))


METHOD = Method(
    rows="pairs", options=Options, train=train, about="pairs in, reward model out", writes="reward", trl=trl
)
