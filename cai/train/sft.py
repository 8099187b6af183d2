"""Supervised fine-tuning on revised answers (arXiv 2212.08073, section 3).

Rows are prompt and completion; the loss is on the answer and its end token, never on the prompt. TRL packs rows on
request (`trl: {packing: true}`). Row weights are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.trl.options import TrainingOptions


class Options(TrainingOptions):
    revisions: Literal["last", "all"] = "last"
    """For a run: train on the final answer of each trace, or on every accepted revision as in the paper."""
    mix: str = ""
    """A file or folder of helpful answers to train on as well, so that the model does not become evasive."""
    mix_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the rows of `mix` among all training rows."""


def trl(options: Options) -> Mapping[str, object]:
    """Fields of TRL's SFTConfig."""
    return {"max_length": options.max_length, "completion_only_loss": True}


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train on completions. Raises Mistake."""
    from trl import SFTConfig, SFTTrainer

    from cai.train.trl import datasets, trainer
    from cai.train.trl.supervised import train_supervised

    class Trainer(trainer.Guarded, SFTTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    data = datasets.datasets(job, datasets.completion_rows(job.rows), datasets.completion_rows(job.held_out))
    return train_supervised(Trainer, trainer.settings(SFTConfig, job, options, **trl(options)), job, options, data)


METHOD = Method(rows="messages", options=Options, train=train, about="prompts and completions in, policy out", trl=trl)
