"""SFT, DPO, KTO and ORPO: rows into TRL's trainer, its result into a folder.

Left out on purpose: what they share with each other and with RL, which is in `_frame`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transformers import set_seed

from cai.core.plugin_types import Job
from cai.train.dpo import Options as DPO
from cai.train.kto import Options as KTO
from cai.train.orpo import Options as ORPO
from cai.train.sft import Options as SFT
from cai.train.trl import datasets as _rows
from cai.train.trl import trainer as _frame
from cai.train.trl.trainer import Guarded

Figures = Mapping[str, Any]
Fields = Mapping[str, Any]


def train_sft(job: Job, options: SFT, fields: Fields) -> Figures:
    """`fields` are those of TRL's config that the method sets itself; so in all of these."""
    from trl import SFTConfig, SFTTrainer

    class Trainer(Guarded, SFTTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    data = _rows.datasets(job, _rows.completions(job.rows), _rows.completions(job.held_out))
    return _run(Trainer, _frame.settings(SFTConfig, job, options, **fields), job, options, data)


def train_dpo(job: Job, options: DPO, fields: Fields) -> Figures:
    from trl import DPOConfig

    from cai.train.trl.soft_labels import SoftDPOTrainer

    soft = options.soft and options.loss == "sigmoid" and "loss_type" not in options.trl
    data = _rows.datasets(job, _rows.preferences(job.rows, soft=soft), _rows.preferences(job.held_out, soft=soft))
    settings = _frame.settings(DPOConfig, job, options, **_for_processes(fields))
    ties = 0 if soft else len(job.rows) - len(data["train_dataset"])
    return {"ties_left_out": ties, **_run(SoftDPOTrainer, settings, job, options, data, reference=True)}


def train_kto(job: Job, options: KTO, fields: Fields) -> Figures:
    from trl import KTOConfig, KTOTrainer

    class Trainer(Guarded, KTOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    data = _rows.datasets(job, _rows.labelled(job.rows, job.seed), _rows.labelled(job.held_out, job.seed))
    settings = _frame.settings(KTOConfig, job, options, **_for_processes(fields))
    return _run(Trainer, settings, job, options, data, reference=True)


def train_orpo(job: Job, options: ORPO, fields: Fields) -> Figures:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Trainer(Guarded, ORPOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    data = _rows.datasets(job, _rows.preferences(job.rows, soft=False), _rows.preferences(job.held_out, soft=False))
    ties = len(job.rows) - len(data["train_dataset"])
    settings = _frame.settings(ORPOConfig, job, options, **fields)
    return {"ties_left_out": ties, **_run(Trainer, settings, job, options, data)}


def _for_processes(fields: Fields) -> Fields:
    """TRL keeps precomputed log-probabilities in a file of one process's own, so several ask the reference instead."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return fields if alone else {**fields, "precompute_ref_log_probs": False}


def _run(
    trainer: type, settings: Any, job: Job, options: Any, data: Mapping[str, Any], *, reference: bool = False
) -> dict[str, float]:
    with _frame.quiet():
        set_seed(job.seed)
        tokenizer = _frame.open_tokenizer(job.model)
        more: dict[str, Any] = {}
        if reference and not options.r and not settings.precompute_ref_log_probs:
            # given, because TRL would load it again by name, and a model changed in memory has a name that is wrong
            more["ref_model"] = _frame.open_policy(job.model, options)
        running = trainer(
            model=_frame.open_policy(job.model, options),
            args=settings,
            processing_class=tokenizer,
            peft_config=_frame.lora(options, job),
            **data,
            **more,
        )
        figures = _frame.fit(running, job)
        _frame.save(running, tokenizer, job, options)
    return figures
