"""Trains a reward model, or an ensemble of them on one backbone, and evaluates it on held-out pairs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, set_seed

from cai.backends.local.reward_model import ENSEMBLE, open_scorer
from cai.core.errors import Mistake
from cai.core.plugin_types import Job
from cai.core.seeds import seed, uniform
from cai.runs.files import replaced_folder, write_json
from cai.train.reward_model.evaluation import evaluate
from cai.train.reward_model.length_bias import fit_biases, terms
from cai.train.reward_model.options import Options
from cai.train.trl import trainer as trainers
from cai.train.trl.datasets import datasets, preferences, without_ties
from cai.train.trl.tokenizer import open_tokenizer
from cai.train.trl.trainer import ADAPTER, lora, merged, open_policy, quiet, run_trainer, save

SHARE = 2 / 3
"""Share of the prompts that one member of an ensemble is trained on."""

Row = Mapping[str, Any]


def train_reward(job: Job, options: Options, fields: Mapping[str, object]) -> Mapping[str, object]:
    """Train and evaluate; the figures. `fields` are the fields of TRL's RewardConfig that the method sets."""
    features = [*(["length"] if options.length == "margin" else []), *options.nuisance]
    fitted = fit_biases(job.rows, features) if features else {}
    if options.members == 1:
        figures = _member(job, options, fields, fitted)
    else:
        figures = _ensemble(job, options, fields, fitted)
    if job.held_out and _first():
        with quiet():
            scorer = open_scorer(job.out / "model", batch_size=2 * options.batch_size, device=options.device)
            figures["held_out"] = evaluate(scorer, job.held_out, job.seed)
    return {"explained_away": fitted, **figures}


def _first() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _member(job: Job, options: Options, fields: Mapping[str, Any], fitted: Mapping[str, float]) -> dict[str, Any]:
    from trl import RewardConfig

    from cai.train.trl.soft_labels import SoftRewardTrainer

    settings = trainers.settings(RewardConfig, job, options, **fields)
    rows, held_out = (_labelled(part, options, fitted) for part in (job.rows, job.held_out))
    with quiet():
        set_seed(job.seed)  # the reward head is initialised at random
        tokenizer = open_tokenizer(job.model)
        trainer = SoftRewardTrainer(
            model=open_policy(job.model, options, AutoModelForSequenceClassification, num_labels=1),
            args=settings,
            processing_class=tokenizer,
            peft_config=lora(options, job, "SEQ_CLS"),
            **datasets(job, rows, held_out),
        )
        trainer.length_weight = options.length_weight if options.length == "penalty" else 0.0
        figures = run_trainer(trainer, job)
        save(trainer, tokenizer, job, options, AutoModelForSequenceClassification, num_labels=1)
    return figures


def _labelled(rows: Sequence[Row], options: Options, fitted: Mapping[str, float]) -> list[dict[str, Any]]:
    """The trainer's columns; `margin` is the required margin minus the part that is explained away."""
    kept = list(rows) if options.soft else without_ties(rows)
    columns = preferences(kept, soft=options.soft)
    if not options.margins and not fitted:
        return columns
    required = [_margin(row) if options.margins else 0.0 for row in kept]
    explained = terms(kept, fitted)
    return [row | {"margin": one - other} for row, one, other in zip(columns, required, explained, strict=True)]


def _margin(row: Row) -> float:
    if row.get("margin") is None:
        raise Mistake(row["id"], "has no margin, which `margins: true` requires", "set margins: false")
    return float(row["margin"])


# --- Ensembles --------------------------------------------------------------------------------------------------------


def _ensemble(job: Job, options: Options, fields: Mapping[str, Any], fitted: Mapping[str, float]) -> dict[str, Any]:
    """Train each member by itself, resuming where it stopped; then gather all in one folder."""
    names = [f"member-{number}" for number in range(options.members)]
    alone = options.model_copy(update={"members": 1, "merge": False})
    figures: dict[str, Any] = {}
    for name in names:
        part = replace(
            job,
            rows=[row for row in job.rows if _drawn(job, name, row)],
            out=job.out / "members" / name,
            seed=seed("member", job.seed, name),
            log=_named(job.log, name),
        )
        done = part.out / "figures.json"
        if not (job.resume and done.is_file()):
            if not part.rows:
                raise Mistake(str(job.out), f"{name} has no rows", "fewer members, or more rows")
            member_figures = _member(part, alone, fields, fitted)
            if _first():
                write_json(done, member_figures)
        figures[name] = json.loads(done.read_text("utf-8")) if _first() else {}
    if _first():
        _gather(job, names)
    return figures


def _drawn(job: Job, member: str, row: Row) -> bool:
    return uniform("member", job.seed, member, [turn["content"] for turn in row["prompt"]]) < SHARE


def _named(log: Callable[[Mapping[str, Any]], None], member: str) -> Callable[[Mapping[str, Any]], None]:
    return lambda line: log({"member": member, **line})


def _gather(job: Job, names: Sequence[str]) -> None:
    """Write backbone/, one adapter folder a member and `ensemble.json`: all that scoring needs."""
    with replaced_folder(job.out / "model") as folder:
        tokenizer, model = open_tokenizer(job.model), job.model
        if (model / ADAPTER).is_file():
            merged(model).save_pretrained(folder / "backbone")
        else:
            shutil.copytree(model, folder / "backbone", ignore=shutil.ignore_patterns(".*", "README.md"))
        for name in names:
            shutil.copytree(job.out / "members" / name / "model", folder / name)
            _use_relative_backbone(folder / name / ADAPTER)
        tokenizer.save_pretrained(folder)
        write_json(folder / ENSEMBLE, {"backbone": "backbone", "members": list(names)})


def _use_relative_backbone(config: Path) -> None:
    """Make an adapter name the backbone beside it in place of an absolute path."""
    write_json(config, json.loads(config.read_text("utf-8")) | {"base_model_name_or_path": "../backbone"})
