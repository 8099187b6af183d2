"""Kahneman-Tversky Optimization (Ethayarajh et al., 2024, arXiv 2402.01306, eq. 8): single answers, good or bad.

TRL reads the rows in order, and estimates the KL term by pairing each prompt of a batch with its neighbour's answer.
Rows are therefore shuffled here, by digest, so that good and bad answers of different prompts are adjacent.

Row weights are not used: TRL has one weight for each label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.trl.options import TrainingOptions


class Options(TrainingOptions):
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 8
    """At least 2, because the KL term needs a neighbour. One batch of 8 is not the same step as eight batches of 1."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    desirable_weight: Annotated[float, Field(ge=0)] = 1.0
    undesirable_weight: Annotated[float, Field(ge=0)] = 1.0
    """The paper advises (desirable weight x good answers) / (undesirable weight x bad ones) between 1 and 4/3."""
    precompute: bool = True
    """Compute the reference model's log-probabilities once, then free it; False computes them at every step."""


def trl(options: Options) -> Mapping[str, object]:
    """Fields of TRL's KTOConfig."""
    return {
        "max_length": options.max_length,
        "beta": options.beta,
        "loss_type": options.loss,
        "desirable_weight": options.desirable_weight,
        "undesirable_weight": options.undesirable_weight,
        "precompute_ref_log_probs": options.precompute,
        "precompute_ref_batch_size": options.batch_size,
        "disable_dropout": True,
    }


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train on answers labelled good or bad. Raises Mistake."""
    from trl import KTOConfig, KTOTrainer

    from cai.train.trl import datasets, trainer
    from cai.train.trl.supervised import per_process, train_supervised

    class Trainer(trainer.Guarded, KTOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    rows, held_out = (datasets.labelled_rows(part, job.seed) for part in (job.rows, job.held_out))
    data = datasets.datasets(job, rows, held_out)
    settings = trainer.settings(KTOConfig, job, options, **per_process(trl(options)))
    return train_supervised(Trainer, settings, job, options, data, reference=True)


METHOD = Method(
    rows="labels", options=Options, train=train, about="answers labelled good or bad in, policy out", trl=trl
)
