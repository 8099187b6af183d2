"""The training that SFT, DPO, KTO and ORPO share: run a TRL trainer on the rows and save its result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import set_seed

from cai.core.plugin_types import Job
from cai.train.trl.options import TrainingOptions
from cai.train.trl.tokenizer import open_tokenizer
from cai.train.trl.trainer import lora, open_policy, quiet, run_trainer, save

if TYPE_CHECKING:
    from transformers import TrainingArguments

Figures = Mapping[str, Any]
Fields = Mapping[str, Any]


def per_process(fields: Fields) -> Fields:
    """`fields` without precomputed log-probabilities where there are several processes: TRL caches them per process."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return fields if alone else {**fields, "precompute_ref_log_probs": False}


def train_supervised(
    trainer: type,
    settings: TrainingArguments,
    job: Job,
    options: TrainingOptions,
    data: Mapping[str, object],
    *,
    reference: bool = False,
) -> dict[str, float]:
    with quiet():
        set_seed(job.seed)
        tokenizer = open_tokenizer(job.model)
        more: dict[str, Any] = {}
        if reference and not options.r and not settings.precompute_ref_log_probs:
            # passed explicitly: TRL would load it by name, and a merged model's name is not its folder
            more["ref_model"] = open_policy(job.model, options)
        running = trainer(
            model=open_policy(job.model, options),
            args=settings,
            processing_class=tokenizer,
            peft_config=lora(options, job),
            **data,
            **more,
        )
        figures = run_trainer(running, job)
        save(running, tokenizer, job, options)
    return figures
