"""RLOO and GRPO: TRL's trainers with our rewards, an adaptive KL coefficient, and a reproducible order of rows.

TRL reads its `beta` at every step; here it is adapted after each step and saved with checkpoints. An answer without a
reward (None) gets no advantage and does not count for its group's mean. To sample with vLLM: `trl: {use_vllm: true}`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import Dataset
from transformers import set_seed

from cai.core.plugin_types import Job
from cai.runs.files import write_json
from cai.train.rl.options import NO_PENALTY, GroupedOptions, PromptRows, fitting_prompts
from cai.train.rl.rewards import Rewards
from cai.train.trl.tokenizer import open_tokenizer
from cai.train.trl.trainer import Guarded, lora, open_policy, quiet, run_trainer, save, settings

KL_STATE = "kl.json"
METRIC_NAMES = {
    "kl": "kl_token",
    "kl_answer": "kl",
    "completions/mean_length": "length",
    "clip_ratio/region_mean": "clip",
    "loss": "policy_loss",
}
"""TRL's metric names -> the names that all online methods here use."""

SUMMARY = ("reward", "kl", "kl_coef", "length", "entropy", "disagreement")
"""Metrics of the last step that become figures of the training."""


class AdaptiveKLMixin:
    """A mixin for TRL trainers with `beta`: adapts it towards `options.kl_target` after each step."""

    def __init__(self, *args: Any, options: GroupedOptions, **kwargs: Any) -> None:
        self.kl, self._kl_means, self._tokens = options.kl(), list[float](), 0.0
        super().__init__(*args, **kwargs)

    def training_step(self, *args: object, **kwargs: object) -> object:
        metrics: Any = self._metrics["train"]  # type: ignore[attr-defined]  # defined by TRL's trainer
        before = len(metrics["kl"])
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self._kl_means += metrics["kl"][before:]
        if lengths := metrics["completions/mean_length"]:
            self._tokens = lengths[-1]
        if self.accelerator.sync_gradients and self._kl_means:  # type: ignore[attr-defined]
            kl = fmean(self._kl_means) * self._tokens  # TRL gives the mean over tokens; an answer's KL is the sum
            metrics["kl_answer"].append(kl)
            metrics["kl_coef"].append(self.kl.coefficient)
            self.kl.update(kl, self.args.generation_batch_size)  # type: ignore[attr-defined]
            self.beta, self._kl_means = self.kl.coefficient or NO_PENALTY, []
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        if self.args.should_save:  # type: ignore[attr-defined]
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
            write_json(folder / KL_STATE, {"coefficient": self.kl.coefficient})

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint and (Path(checkpoint) / KL_STATE).is_file():
            self.kl.coefficient = json.loads((Path(checkpoint) / KL_STATE).read_text("utf-8"))["coefficient"]
            self.beta = self.kl.coefficient or NO_PENALTY


class RewardCallback:
    """Our rewards as the callable that TRL expects."""

    __name__ = "reward"  # its name in TRL's metrics

    def __init__(
        self, rewards: Rewards, rows: Sequence[Mapping[str, Any]], options: GroupedOptions, ends: set[int]
    ) -> None:
        self._rewards, self._rows, self._penalty, self._ends = rewards, rows, options.missing_eos_penalty, ends
        self.unrewarded, self.sample = 0, ""

    def __call__(
        self, *, completions: Any, completion_ids: Any, row: Sequence[int], log_metric: Any, **_: Any
    ) -> list[float | None]:
        texts = [completion[0]["content"] for completion in completions]
        batch_rewards = self._rewards.of([self._rows[place] for place in row], texts)
        ended = [bool(ids) and ids[-1] in self._ends for ids in completion_ids]
        self.unrewarded, self.sample = self.unrewarded + batch_rewards.failed, texts[0]
        log_metric("unrewarded", float(batch_rewards.failed))
        log_metric("ended", fmean(ended))
        if batch_rewards.disagreement is not None:
            log_metric("disagreement", batch_rewards.disagreement)
        return [
            None if score is None else score - (0.0 if end else self._penalty)
            for score, end in zip(batch_rewards.scores, ended, strict=True)
        ]


def train_rloo(job: Job, options: GroupedOptions, fields: Mapping[str, object]) -> Mapping[str, object]:
    """Train with RLOO. `fields` are the fields of TRL's config that the method sets."""
    from trl import RLOOConfig, RLOOTrainer

    class Trainer(Guarded, AdaptiveKLMixin, RLOOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    return _run(Trainer, RLOOConfig, job, options, fields)


def train_grpo(job: Job, options: GroupedOptions, fields: Mapping[str, object]) -> Mapping[str, object]:
    """Train with GRPO. `fields` are the fields of TRL's config that the method sets."""
    from trl import GRPOConfig, GRPOTrainer

    class Trainer(Guarded, AdaptiveKLMixin, GRPOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    return _run(Trainer, GRPOConfig, job, options, fields)


def _run(trainer: type, config: type, job: Job, options: GroupedOptions, fields: Mapping[str, Any]) -> dict[str, Any]:
    rewards = Rewards(options.rewards, options.combine, job)  # first, so that a wrong name costs no compute
    try:
        with quiet():
            set_seed(job.seed)
            tokenizer = open_tokenizer(job.model)
            prompt_rows = fitting_prompts(job.rows, tokenizer, options)
            world = int(os.environ.get("WORLD_SIZE", "1"))
            prompts = options.batch_size * options.accumulate * world // options.answers  # of one step
            steps = options.max_steps or max(1, ceil(options.epochs * len(prompt_rows.rows) / prompts))
            # one epoch with all steps in our order: TRL skips what it has seen when it resumes
            steps_fields = {**fields, "max_steps": steps, "num_train_epochs": 1}
            model = open_policy(job.model, options)
            model.config._name_or_path = str(job.model)  # where TRL loads the reference model from
            reward_callback = RewardCallback(rewards, prompt_rows.rows, options, _ends(model, tokenizer))
            running = trainer(
                model=model,
                args=settings(config, job, options, **steps_fields),
                processing_class=tokenizer,
                peft_config=lora(options, job),
                train_dataset=_dataset(prompt_rows, job.seed, steps * prompts),
                reward_funcs=reward_callback,
                options=options,
            )
            log = _MetricsLog(job, reward_callback)
            figures = run_trainer(running, replace(job, log=log, held_out=()))
            save(running, tokenizer, job, options)
    finally:
        rewards.close()
    return (
        figures
        | log.last
        | {"unrewarded": reward_callback.unrewarded, "too_long": len(job.rows) - len(prompt_rows.rows)}
    )


def _dataset(prompt_rows: PromptRows, seed: int, count: int) -> Dataset:
    """`count` prompts, epoch after epoch, each with its row index."""
    places = prompt_rows.indices(seed, 0, count)
    return Dataset.from_list([{"prompt": prompt_rows.rows[place]["prompt"], "row": place} for place in places])


class _MetricsLog:
    """Renames TRL's metrics and adds a sample answer before they are logged."""

    def __init__(self, job: Job, reward_callback: RewardCallback) -> None:
        self._job, self._paid = job, reward_callback
        self.last: dict[str, float] = {}

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        named = {METRIC_NAMES.get(name, name): value for name, value in metrics.items() if value is not None}
        if "kl" in named:
            self.last = {name: named[name] for name in SUMMARY if name in named}
            named["sample"] = self._paid.sample
        self._job.log(named)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    named = (model.generation_config.eos_token_id, tokenizer.eos_token_id)
    return {token for one in named for token in (one if isinstance(one, list) else [one]) if token is not None}
