"""What SFT, DPO, KTO and ORPO share: rows into a trainer of TRL, its result into a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transformers import set_seed

from cai.core.plugin_types import Job
from cai.train.trl.trainer import lora, open_policy, open_tokenizer, quiet, run_trainer, save

Figures = Mapping[str, Any]
Fields = Mapping[str, Any]


def per_process(fields: Fields) -> Fields:
    """TRL keeps precomputed log-probabilities in a file of one process's own, so several ask the reference instead."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return fields if alone else {**fields, "precompute_ref_log_probs": False}


def train_supervised(
    trainer: type, settings: Any, job: Job, options: Any, data: Mapping[str, Any], *, reference: bool = False
) -> dict[str, float]:
    with quiet():
        set_seed(job.seed)
        tokenizer = open_tokenizer(job.model)
        more: dict[str, Any] = {}
        if reference and not options.r and not settings.precompute_ref_log_probs:
            # given, because TRL would load it again by name, and a model changed in memory has a name that is wrong
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
