"""Supervised fine-tuning on the answers that a constitution stands behind (arXiv 2212.08073, section 3).

Rows are prompt and completion, so that the loss is on the answer and its end token and never on the prompt.

Left out on purpose: packing, which TRL does on request (`trl: {packing: true}`), and weights of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.trl.options import TrainingOptions


class Options(TrainingOptions):
    revisions: Literal["last", "all"] = "last"
    """Of a run: the final answer of each trace, or every accepted revision as in the paper."""
    mix: str = ""
    """A file or folder of helpful answers to learn from as well, lest the model learn to evade."""
    mix_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Their share of all training rows, where `mix` names some."""


def trl(options: Options) -> Mapping[str, Any]:
    """Fields of TRL's SFTConfig."""
    return {"max_length": options.max_length, "completion_only_loss": True}


def train(job: Job, options: Options) -> Mapping[str, Any]:
    """Learn the completions. Raises Mistake."""
    from trl import SFTConfig, SFTTrainer

    from cai.train.trl import datasets, trainer
    from cai.train.trl.supervised import train_supervised

    class Trainer(trainer.Guarded, SFTTrainer):  # type: ignore[misc]  # TRL has no types here
        pass

    data = datasets.datasets(job, datasets.completion_rows(job.rows), datasets.completion_rows(job.held_out))
    return train_supervised(Trainer, trainer.settings(SFTConfig, job, options, **trl(options)), job, options, data)


METHOD = Method(rows="messages", options=Options, train=train, about="imitates answers: prompt and completion", trl=trl)
