"""Odds-Ratio Preference Optimization (Hong et al., 2024, arXiv 2403.07691, eq. 6): one loss, no reference model.

Soft labels are not used: every label counts as certain, and ties are left out. TRL's likelihood term is a mean over the
tokens of a batch, so one batch of eight is not exactly the same step as eight batches of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.trl.options import TrainingOptions


class Options(TrainingOptions):
    beta: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the odds-ratio term (lambda in the paper); 0 is plain SFT on the chosen answers."""


def _trl(options: Options) -> Mapping[str, object]:
    """Fields of TRL's ORPOConfig."""
    return {"max_length": options.max_length, "beta": options.beta, "disable_dropout": True}


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train on preferences and on the chosen answers together. Raises Mistake."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    from cai.train.trl import datasets, trainer
    from cai.train.trl.supervised import train_supervised

    class Trainer(trainer.Guarded, ORPOTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    rows, held_out = (datasets.preferences(part, soft=False) for part in (job.rows, job.held_out))
    data = datasets.datasets(job, rows, held_out)
    ties = len(job.rows) - len(data["train_dataset"])
    settings = trainer.settings(ORPOConfig, job, options, **_trl(options))
    return {"ties_left_out": ties, **train_supervised(Trainer, settings, job, options, data)}


METHOD = Method(rows="pairs", options=Options, train=train, about="pairs in, policy out, no reference model")
