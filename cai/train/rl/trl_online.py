"""RLOO and GRPO: TRL's trainers with our rewards, an adaptive price on KL, and an order of rows that resuming finds.

TRL reads its `beta` at every step; here it is steered after each, and kept with checkpoints. An answer without a reward
gets no advantage and takes no part in its group's mean: TRL does so for rewards of None.

Left out on purpose: sampling by vLLM, which passes through `trl: {use_vllm: true}`.
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
from cai.train.rl.options import FREE, Grouped, Prompted, fitting
from cai.train.rl.rewards import Rewards
from cai.train.trl.trainer import Guarded, lora, open_policy, open_tokenizer, quiet, run_trainer, save, settings

STATE = "kl.json"
OURS = {
    "kl": "kl_token",
    "kl_answer": "kl",
    "completions/mean_length": "length",
    "clip_ratio/region_mean": "clip",
    "loss": "policy_loss",
}
"""What TRL's metrics are called by all methods of reinforcement here."""

TOLD = ("reward", "kl", "kl_coef", "length", "entropy", "disagreement")
"""What of the last step is told at the end."""


class AdaptiveKLMixin:
    """Mixed in before a trainer of TRL that has `beta`: it is steered towards `options.kl_target` after each step."""

    def __init__(self, *args: Any, options: Grouped, **kwargs: Any) -> None:
        self.kl, self._told, self._tokens = options.kl(), list[float](), 0.0
        super().__init__(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        metrics: Any = self._metrics["train"]  # type: ignore[attr-defined]  # TRL's trainer, that this is mixed into
        heard = len(metrics["kl"])
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self._told += metrics["kl"][heard:]
        if lengths := metrics["completions/mean_length"]:
            self._tokens = lengths[-1]
        if self.accelerator.sync_gradients and self._told:  # type: ignore[attr-defined]
            kl = fmean(self._told) * self._tokens  # TRL means over tokens; an answer's KL is a sum
            metrics["kl_answer"].append(kl)
            metrics["kl_coef"].append(self.kl.coefficient)
            self.kl.update(kl, self.args.generation_batch_size)  # type: ignore[attr-defined]
            self.beta, self._told = self.kl.coefficient or FREE, []
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        if self.args.should_save:  # type: ignore[attr-defined]
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
            write_json(folder / STATE, {"coefficient": self.kl.coefficient})

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint and (Path(checkpoint) / STATE).is_file():
            self.kl.coefficient = json.loads((Path(checkpoint) / STATE).read_text("utf-8"))["coefficient"]
            self.beta = self.kl.coefficient or FREE


class Paid:
    """Our rewards in the form that TRL calls."""

    __name__ = "reward"  # what TRL's metrics call it

    def __init__(self, rewards: Rewards, rows: Sequence[Mapping[str, Any]], options: Grouped, ends: set[int]) -> None:
        self._rewards, self._rows, self._penalty, self._ends = rewards, rows, options.missing_eos_penalty, ends
        self.unrewarded, self.sample = 0, ""

    def __call__(
        self, *, completions: Any, completion_ids: Any, row: Sequence[int], log_metric: Any, **_: Any
    ) -> list[float | None]:
        texts = [completion[0]["content"] for completion in completions]
        worth = self._rewards.of([self._rows[place] for place in row], texts)
        ended = [bool(ids) and ids[-1] in self._ends for ids in completion_ids]
        self.unrewarded, self.sample = self.unrewarded + worth.failed, texts[0]
        log_metric("unrewarded", float(worth.failed))
        log_metric("ended", fmean(ended))
        if worth.disagreement is not None:
            log_metric("disagreement", worth.disagreement)
        return [
            None if score is None else score - (0.0 if end else self._penalty)
            for score, end in zip(worth.scores, ended, strict=True)
        ]


def train_rloo(job: Job, options: Grouped, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """`fields` are those of TRL's config that the method sets itself; so in both."""
    from trl import RLOOConfig, RLOOTrainer

    class Trainer(Guarded, AdaptiveKLMixin, RLOOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    return _run(Trainer, RLOOConfig, job, options, fields)


def train_grpo(job: Job, options: Grouped, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    from trl import GRPOConfig, GRPOTrainer

    class Trainer(Guarded, AdaptiveKLMixin, GRPOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    return _run(Trainer, GRPOConfig, job, options, fields)


def _run(trainer: type, config: type, job: Job, options: Grouped, fields: Mapping[str, Any]) -> dict[str, Any]:
    rewards = Rewards(options.rewards, options.combine, job)  # first: a name that is wrong costs nothing then
    try:
        with quiet():
            set_seed(job.seed)
            tokenizer = open_tokenizer(job.model)
            asked = fitting(job.rows, tokenizer, options)
            world = int(os.environ.get("WORLD_SIZE", "1"))
            prompts = options.batch_size * options.accumulate * world // options.answers  # of one step
            steps = options.max_steps or max(1, ceil(options.epochs * len(asked.rows) / prompts))
            # all steps are one epoch to TRL: the order is ours, and what it has seen is what it skips on resuming
            more = {**fields, "max_steps": steps, "num_train_epochs": 1}
            model = open_policy(job.model, options)
            model.config._name_or_path = str(job.model)  # whence TRL loads the reference
            paid = Paid(rewards, asked.rows, options, _ends(model, tokenizer))
            running = trainer(
                model=model,
                args=settings(config, job, options, **more),
                processing_class=tokenizer,
                peft_config=lora(options, job),
                train_dataset=_served(asked, job.seed, steps * prompts),
                reward_funcs=paid,
                options=options,
            )
            told = _Told(job, paid)
            figures = run_trainer(running, replace(job, log=told, held_out=()))
            save(running, tokenizer, job, options)
    finally:
        rewards.close()
    return figures | told.last | {"unrewarded": paid.unrewarded, "too_long": len(job.rows) - len(asked.rows)}


def _served(asked: Prompted, seed: int, count: int) -> Dataset:
    """`count` prompts, epoch after epoch, each with its place among the rows."""
    places = asked.served(seed, 0, count)
    return Dataset.from_list([{"prompt": asked.rows[place]["prompt"], "row": place} for place in places])


class _Told:
    """TRL's metrics on their way out, by our names, with an answer for people to read."""

    def __init__(self, job: Job, paid: Paid) -> None:
        self._job, self._paid = job, paid
        self.last: dict[str, float] = {}

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        named = {OURS.get(name, name): value for name, value in metrics.items() if value is not None}
        if "kl" in named:
            self.last = {name: named[name] for name in TOLD if name in named}
            named["sample"] = self._paid.sample
        self._job.log(named)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    named = (model.generation_config.eos_token_id, tokenizer.eos_token_id)
    return {token for one in named for token in (one if isinstance(one, list) else [one]) if token is not None}
