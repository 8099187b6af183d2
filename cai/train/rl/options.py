"""What PPO, RLOO and GRPO let a person set: whence rewards come, what leaving the start costs, how answers are sampled.

Left out on purpose: torch; the record files import this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cai.core import seeds
from cai.core.errors import Mistake
from cai.train.rl.adaptive_kl import AdaptiveKL
from cai.train.rl.rewards import RewardSources
from cai.train.trl.options import TrainingOptions


class Online(TrainingOptions):
    """Options of the methods that learn from their own answers."""

    rewards: RewardSources
    """What answers are worth: a reward model's folder, `pkg.module:function`, a judge; one or several."""
    combine: Literal["sum", "min"] = "sum"
    """Several rewards: the weighted sum, or the least of them."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.1
    """Reward that one nat of distance from the start costs, at first; 0 costs nothing and is still measured."""
    kl_target: Annotated[float, Field(gt=0)] | None = 6.0
    """Nats an answer that the coefficient is steered towards; None keeps the coefficient."""
    kl_horizon: Annotated[int, Field(ge=1)] = 10_000
    """Answers over which the coefficient can change by a fifth."""
    temperature: Annotated[float, Field(gt=0, le=5)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    """Tokens of an answer at most."""
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    """Taken from the reward of an answer that does not end by itself."""

    def kl(self) -> AdaptiveKL:
        """The coefficient as it is at first."""
        return AdaptiveKL(self.kl_coef, self.kl_target, self.kl_horizon)


class Grouped(Online):
    """Options of the methods that compare answers to one prompt. A step is `batch_size * accumulate` answers."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Answers that one process computes at a time."""
    answers: int

    @model_validator(mode="after")
    def _whole_groups(self) -> Grouped:
        if self.batch_size * self.accumulate % self.answers:
            raise ValueError(f"answers ({self.answers}) must divide batch_size * accumulate")
        return self


def trl_fields(options: Grouped) -> dict[str, Any]:
    """Fields that TRL's RLOOConfig and GRPOConfig share."""
    return {
        "beta": options.kl_coef or FREE,
        "num_generations": options.answers,
        "max_completion_length": options.max_new_tokens,
        "temperature": options.temperature,
        "shuffle_dataset": False,  # rows come in an order of their own, which resuming can find again
        "disable_dropout": True,
        "lr_scheduler_type": "constant",
    }


FREE = 1e-12
"""With a coefficient of 0 TRL builds no reference, and then nobody measures how far the policy has gone."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """The rows that can be answered, and the tokens of each one's prompt."""

    rows: list[Mapping[str, Any]]
    tokens: list[list[int]]

    def order(self, seed: int, epoch: int) -> list[int]:
        """Places of all rows as an epoch takes them, by digest: resuming needs no state to find it."""
        keys = [seeds.digest("epoch", seed, epoch, row["id"], row["prompt"]) for row in self.rows]
        return sorted(range(len(keys)), key=lambda place: keys[place])

    def served(self, seed: int, first: int, count: int) -> list[int]:
        """`count` places from the one numbered `first` on, epoch after epoch."""
        size = len(self.rows)
        epochs = {epoch: self.order(seed, epoch) for epoch in range(first // size, (first + count - 1) // size + 1)}
        return [epochs[place // size][place % size] for place in range(first, first + count)]


def fitting(rows: Sequence[Mapping[str, Any]], tokenizer: Any, options: Online) -> Prompted:
    """The rows whose prompt leaves room for an answer in max_length. Raises Mistake where there is none."""
    most, found = options.max_length - options.max_new_tokens, Prompted([], [])
    for row in rows:
        read = tokenizer.apply_chat_template(
            list(row["prompt"]), tokenize=True, add_generation_prompt=True, return_dict=True
        )
        if len(read["input_ids"]) <= most:
            found.rows.append(row)
            found.tokens.append(list(read["input_ids"]))
    if not found.rows:
        raise Mistake("data", f"no prompt has at most {most} tokens", "raise max_length, or lower max_new_tokens")
    return found
