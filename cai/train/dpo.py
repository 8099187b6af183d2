"""Direct Preference Optimization (Rafailov et al., 2023, arXiv 2305.18290, eq. 7), with soft labels and weights.

The loss of a label p is -p log s(b d) - (1 - p) log s(-b d), where d is the log-ratio margin over the reference model.
At p = 1 it is TRL's own loss; at p = 1/2 it prefers neither side (Mitchell, 2023, conservative DPO). The reference
model is the initial model. The implicit reward b log(policy / reference) is logged as rewards/chosen and
rewards/rejected.

TRL's other losses take no soft labels: with them every label counts as certain, and ties are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from cai.core.plugin_types import Job, Method
from cai.train.trl.options import TrainingOptions

Loss = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
]  # fmt: skip


class Options(TrainingOptions):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the KL constraint to the reference model."""
    loss: Loss = "sigmoid"
    """Which of TRL's losses; several at once by `trl: {loss_type: [...], loss_weights: [...]}`."""
    soft: bool = True
    """Use p_chosen and weight (loss: sigmoid). False takes every label as certain, and a run's revision as better than
    its draft, whatever a judge said."""
    precompute: bool = True
    """Compute the reference model's log-probabilities once, then free it; False computes them at every step."""


def trl(options: Options) -> Mapping[str, object]:
    """Fields of TRL's DPOConfig."""
    return {
        "max_length": options.max_length,
        "beta": options.beta,
        "loss_type": [options.loss],
        "precompute_ref_log_probs": options.precompute,
        "precompute_ref_batch_size": options.batch_size,
        "disable_dropout": True,
    }


def train(job: Job, options: Options) -> Mapping[str, object]:
    """Train on preference pairs. Raises Mistake."""
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
