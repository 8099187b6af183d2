"""Group relative policy optimisation (Shao et al., arXiv 2402.03300): (reward - mean) / deviation, group by group.

The KL to the reference model is part of the loss, token by token; its coefficient is adapted towards a target. There is
no value head: the other answers to the same prompt are the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.rl.options import GroupedOptions, trl_fields

Loss = Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


class Options(GroupedOptions):
    kl_coef: Annotated[float, Field(ge=0)] = 0.04
    """Initial weight of the KL in the loss. Advantages have deviation 1 here, so the unit is not that of rewards."""
    answers: Annotated[int, Field(ge=2)] = 8
    """Answers to one prompt; they divide batch_size * accumulate."""
    loss: Loss = "dapo"
    """Which of TRL's losses."""
    scale: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing."""


def trl(options: Options) -> Mapping[str, object]:
    """Fields of TRL's GRPOConfig."""
    return trl_fields(options) | {"loss_type": options.loss, "scale_rewards": options.scale}


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train the policy on its own answers. Raises Mistake."""
    from cai.train.rl.trl_online import train_grpo

    return train_grpo(job, options, trl(options))


METHOD = Method(
    rows="prompts",
    options=Options,
    train=train,
    about="prompts and a reward in, policy out; rewards relative to a group, adaptive KL in the loss",
    trl=trl,
)
