"""REINFORCE leave-one-out (Ahmadian et al., arXiv 2402.14740): the baseline is the mean reward of the other answers.

The KL to the reference model is subtracted from the reward, as in PPO; its coefficient is adapted towards a target.
There is no value head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.rl.options import GroupedOptions, trl_fields


class Options(GroupedOptions):
    answers: Annotated[int, Field(ge=2)] = 4
    """Answers to one prompt; they divide batch_size * accumulate."""
    normalize: bool = False
    """Normalise the advantages of a step to mean 0 and standard deviation 1."""


def trl(options: Options) -> Mapping[str, object]:
    """Fields of TRL's RLOOConfig."""
    return trl_fields(options) | {"normalize_advantages": options.normalize}


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train the policy on its own answers. Raises Mistake."""
    from cai.train.rl.trl_online import train_rloo

    return train_rloo(job, options, trl(options))


METHOD = Method(
    rows="prompts",
    options=Options,
    train=train,
    about="prompts and a reward in, policy out; no value head, adaptive KL in the reward",
    trl=trl,
)
