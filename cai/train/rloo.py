"""REINFORCE leave-one-out (Ahmadian et al., arXiv 2402.14740): answers to one prompt are judged by the others' mean.

The KL to the start is taken from the reward, as in PPO, and its coefficient is steered towards a target.

Left out on purpose: a value head; the other answers to the same prompt are the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.rl.options import Grouped, trl_fields


class Options(Grouped):
    answers: Annotated[int, Field(ge=2)] = 4
    """Answers to one prompt; they divide batch_size * accumulate."""
    normalize: bool = False
    """Bring the advantages of a step to mean 0 and deviation 1."""


def trl(options: Options) -> Mapping[str, Any]:
    """Fields of TRL's RLOOConfig."""
    return trl_fields(options) | {"normalize_advantages": options.normalize}


def train(job: Job, options: Options) -> Mapping[str, Any]:
    """Learn from the policy's own answers. Raises Mistake."""
    from cai.train.rl.trl_online import train_rloo

    return train_rloo(job, options, trl(options))


METHOD = Method(
    rows="prompts",
    options=Options,
    train=train,
    about="prompts and a reward in, policy out; no value head, adaptive KL in the reward",
    trl=trl,
)
