"""Options of PPO, RLOO and GRPO: rewards, KL penalty, sampling. Imported by plug-in records, so it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from cai.core import seeds
from cai.core.errors import Mistake
from cai.core.types import JsonObject
from cai.train.rl.adaptive_kl import AdaptiveKL
from cai.train.rl.rewards import RewardSources
from cai.train.trl.options import TrainingOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class OnlineOptions(TrainingOptions):
    """Options of the methods that train on the policy's own answers."""

    rewards: RewardSources
    """The reward: a reward model's folder, `pkg.module:function`, or a judge; one or several."""
    combine: Literal["sum", "min"] = "sum"
    """How several rewards become one: the weighted sum, or the minimum."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.1
    """Initial KL penalty to the reference model, in reward per nat; at 0 the KL is still measured."""
    kl_target: Annotated[float, Field(gt=0)] | None = 6.0
    """Target KL in nats per answer; None keeps the coefficient fixed."""
    kl_horizon: Annotated[int, Field(ge=1)] = 10_000
    """Answers over which the coefficient can change by one fifth."""
    temperature: Annotated[float, Field(gt=0, le=5)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    """Maximum tokens of an answer."""
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    """Subtracted from the reward of an answer without an end token."""

    def kl(self) -> AdaptiveKL:
        """The initial KL coefficient."""
        return AdaptiveKL(self.kl_coef, self.kl_target, self.kl_horizon)


class GroupedOptions(OnlineOptions):
    """Options of the methods that compare several answers to a prompt. A step is `batch_size * accumulate` answers."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Answers in one batch of one process."""
    answers: int

    @model_validator(mode="after")
    def _whole_groups(self) -> GroupedOptions:
        if self.batch_size * self.accumulate % self.answers:
            raise ValueError(f"answers ({self.answers}) must divide batch_size * accumulate")
        return self


def trl_fields(options: GroupedOptions) -> JsonObject:
    """Fields that TRL's RLOOConfig and GRPOConfig share."""
    return {
        "beta": options.kl_coef or NO_PENALTY,
        "num_generations": options.answers,
        "max_completion_length": options.max_new_tokens,
        "temperature": options.temperature,
        "shuffle_dataset": False,  # the rows are already in an order that is a function of the seed
        "disable_dropout": True,
        "lr_scheduler_type": "constant",
    }


NO_PENALTY = 1e-12
"""With a coefficient of 0 TRL loads no reference model, and the KL is not measured."""


@dataclass(frozen=True, slots=True)
class PromptRows:
    """The rows whose prompt fits, and the tokens of each prompt."""

    rows: list[Mapping[str, Any]]
    tokens: list[list[int]]

    def order(self, seed: int, epoch: int) -> list[int]:
        """Row indices in the order of an epoch, by digest: resuming needs no saved state."""
        keys = [seeds.digest("epoch", seed, epoch, row["id"], row["prompt"]) for row in self.rows]
        return sorted(range(len(keys)), key=keys.__getitem__)

    def indices(self, seed: int, first: int, count: int) -> list[int]:
        """Row indices of the samples `first` to `first + count - 1`, epoch after epoch."""
        size = len(self.rows)
        epochs = {epoch: self.order(seed, epoch) for epoch in range(first // size, (first + count - 1) // size + 1)}
        return [epochs[number // size][number % size] for number in range(first, first + count)]


def fitting_prompts(
    rows: Sequence[Mapping[str, object]], tokenizer: PreTrainedTokenizerBase, options: OnlineOptions
) -> PromptRows:
    """The rows whose prompt leaves room for an answer in max_length. Raises Mistake where there are none."""
    limit, found = options.max_length - options.max_new_tokens, PromptRows([], [])
    for row in rows:
        encoded = tokenizer.apply_chat_template(
            list(cast("list[JsonObject]", row["prompt"])), tokenize=True, add_generation_prompt=True, return_dict=True
        )
        if len(encoded["input_ids"]) <= limit:
            found.rows.append(row)
            found.tokens.append(list(encoded["input_ids"]))
    if not found.rows:
        raise Mistake("data", f"no prompt has at most {limit} tokens", "raise max_length, or lower max_new_tokens")
    return found
