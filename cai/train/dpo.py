"""Direct Preference Optimization (Rafailov et al., 2023, arXiv 2305.18290, eq. 7), with soft labels and weights.

A label p gives -p log s(b d) - (1 - p) log s(-b d), d the log-ratio margin over the reference: at p = 1 TRL's own
loss, at p = 1/2 no pull towards either side (Mitchell, 2023, conservative DPO). The reference is the model that was
started from. The implicit reward b log(policy / reference) is logged as rewards/chosen and rewards/rejected.

Left out on purpose: soft labels in TRL's other losses, which have no such form. Rows count as sure there, and ties
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.trl.options import TrainingOptions

Loss = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
]  # fmt: skip


class Options(TrainingOptions):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How dear it is to leave the reference."""
    loss: Loss = "sigmoid"
    """Which of TRL's losses; several at once by `trl: {loss_type: [...], loss_weights: [...]}`."""
    soft: bool = True
    """Learn from p_chosen and weight (loss: sigmoid); False takes every label for sure, and a run's revision
    for better than its draft, whatever a judge said."""
    precompute: bool = True
    """Compute the reference's log-probabilities once and let go of it; False asks it at every step."""


def trl(options: Options) -> Mapping[str, Any]:
    """Fields of TRL's DPOConfig."""
    return {
        "max_length": options.max_length,
        "beta": options.beta,
        "loss_type": [options.loss],
        "precompute_ref_log_probs": options.precompute,
        "precompute_ref_batch_size": options.batch_size,
        "disable_dropout": True,
    }


def train(job: Job, options: Options) -> Mapping[str, Any]:
    """Learn the preferences. Raises Mistake."""
    from trl import DPOConfig

    from cai.train.trl import datasets, trainer
    from cai.train.trl.soft_labels import SoftDPOTrainer
    from cai.train.trl.supervised import per_process, train_supervised

    soft = options.soft and options.loss == "sigmoid" and "loss_type" not in options.trl
    rows, held_out = (datasets.preferences(part, soft=soft) for part in (job.rows, job.held_out))
    data = datasets.datasets(job, rows, held_out)
    settings = trainer.settings(DPOConfig, job, options, **per_process(trl(options)))
    ties = 0 if soft else len(job.rows) - len(data["train_dataset"])
    return {"ties_left_out": ties, **train_supervised(SoftDPOTrainer, settings, job, options, data, reference=True)}


METHOD = Method(rows="pairs", options=Options, train=train, about="pairs in, policy out, no reward model", trl=trl)
