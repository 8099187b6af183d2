"""A reward model by soft-label Bradley-Terry: -p log s(d) - (1 - p) log s(-d), d the difference of the two rewards.

Length, list markup and preambles can be explained away: a logistic regression on their differences says how much of
the labels they predict, that part is added to d while training, and the reward keeps what is left. At p = 1 and with
nothing else set this is TRL's own loss. An ensemble (Coste et al., 2023, arXiv 2310.02743) has a LoRA adapter for each
member on one backbone, each with its own seed and two thirds of the prompts.

Left out on purpose: several heads on one adapter; measured, their disagreement says nothing (docs/training.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cai.core.plugin_types import Job, Method
from cai.train.trl.options import Training

Feature = Literal["markup", "preamble"]


class Options(Training):
    soft: bool = True
    """Learn from p_chosen and weight; False takes every label for sure, a run's revision for
    better than its draft whatever a judge said, and leaves ties out."""
    margins: bool = False
    """Ask for the distance that a row's `margin` names (Llama 2, arXiv 2307.09288, eq. 2)."""
    center: Annotated[float, Field(ge=0)] = 0.01
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards about 0."""
    length: Literal["none", "margin", "penalty"] = "none"
    """`margin` explains length away by a fitted term; `penalty` punishes its correlation with reward in a batch."""
    length_weight: Annotated[float, Field(ge=0)] = 0.3
    """Weight of the penalty."""
    nuisance: tuple[Feature, ...] = ()
    """What else is explained away by a fitted term: list markup, a preamble."""
    members: Annotated[int, Field(ge=1, le=64)] = 1
    """Reward models in the ensemble."""

    @model_validator(mode="after")
    def _members_are_adapters(self) -> Options:
        if self.members > 1 and not self.r:
            raise ValueError("members share a backbone and differ in their LoRA adapters; set r: 16, or members: 1")
        return self


def trl(options: Options) -> Mapping[str, Any]:
    """Fields of TRL's RewardConfig."""
    return {
        "max_length": options.max_length,
        "center_rewards_coefficient": options.center or None,
        "disable_dropout": True,
    }


def train(job: Job, options: Options) -> Mapping[str, Any]:
    """Learn what is preferred, as a number for one answer. Raises Mistake."""
    from cai.train.reward_model.train import train_reward

    return train_reward(job, options, trl(options))


METHOD = Method(
    rows="pairs", options=Options, train=train, about="pairs in, reward model out", writes="reward", trl=trl
)
