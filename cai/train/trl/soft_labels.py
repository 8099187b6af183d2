"""TRL's reward and DPO trainers with soft labels: two more columns, `p` and `weight`, and two losses.

A row's loss is weight * (-p log s(d) - (1 - p) log s(-d)); a batch's loss is the mean over its rows. Weights have mean
1 over the data set, so one batch of eight is the same step as eight batches of one. Without the columns, or with p = 1
and weight 1, both are TRL's own losses. TRL's other DPO losses are used unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from trl.trainer.dpo_trainer import DataCollatorForPreference as DPOCollator
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference as RewardCollator
from trl.trainer.reward_trainer import RewardTrainer

from cai.core.types import JsonObject
from cai.train.trl.trainer import Guarded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LABELS = ("p", "weight")


def soft_loss(d_B: torch.Tensor, p_B: torch.Tensor | None, weight_B: torch.Tensor | None) -> torch.Tensor:
    """Mean over rows of weight * (-p log s(d) - (1 - p) log s(-d)), nats; None means 1 for every row."""
    loss_B = -F.logsigmoid(d_B)
    if p_B is not None:
        loss_B = p_B * loss_B - (1 - p_B) * F.logsigmoid(-d_B)
    return (loss_B if weight_B is None else weight_B * loss_B).mean()


class _Labels:
    """A mixin for TRL's collators: adds the label columns to the batch."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)  # type: ignore[misc]  # the collator below
        for name in LABELS:
            if name in examples[0]:
                batch[name] = torch.tensor([float(example[name]) for example in examples])
        return batch


class _SoftRewardCollator(_Labels, RewardCollator):  # type: ignore[misc]  # TRL has no types here
    pass


class _SoftDPOCollator(_Labels, DPOCollator):  # type: ignore[misc]  # TRL has no types here
    pass


class _Columns:
    """A mixin for TRL's trainers: keeps the label columns, which would be dropped as unused."""

    _signature_columns: list[str] | None

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]  # the trainer below
        columns = self._signature_columns or []
        self._signature_columns = [*columns, *(name for name in LABELS if name not in columns)]


class SoftRewardTrainer(Guarded, _Columns, RewardTrainer):  # type: ignore[misc]  # TRL has no types here
    """RewardTrainer with soft labels, weights, and a penalty on the correlation of reward and length in a batch."""

    length_weight = 0.0

    def __init__(self, *args: Any, processing_class: Any, **kwargs: Any) -> None:
        collator = _SoftRewardCollator(pad_token_id=processing_class.pad_token_id)
        super().__init__(*args, processing_class=processing_class, data_collator=collator, **kwargs)

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: JsonObject,
        return_outputs: bool = False,
        num_items_in_batch: object = None,
    ) -> object:
        p_B, weight_B, margin_B = (inputs.pop(name, None) for name in (*LABELS, "margin"))
        outputs = model(**inputs, use_cache=False)
        reward_2B = outputs.logits.squeeze(-1)
        chosen_B, rejected_B = reward_2B.chunk(2)
        d_B = chosen_B - rejected_B
        loss = soft_loss(d_B if margin_B is None else d_B - margin_B, p_B, weight_B)
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * ((chosen_B + rejected_B) ** 2).mean()
        if self.length_weight:
            loss = loss + self.length_weight * _correlation(reward_2B, inputs["attention_mask"].sum(-1)) ** 2
        self._log_metrics(d_B.detach(), reward_2B.detach(), p_B)
        return (loss, outputs) if return_outputs else loss

    def _log_metrics(self, d_B: torch.Tensor, reward_2B: torch.Tensor, p_B: torch.Tensor | None) -> None:
        """Log accuracy (a tie in the label counts half), margin and mean reward, over all processes."""
        right_B = (d_B > 0).float() if p_B is None else torch.where(p_B == 0.5, 0.5, ((d_B > 0) == (p_B > 0.5)).float())
        logged = self._metrics["train" if self.model.training else "eval"]
        for name, value in (("accuracy", right_B), ("margin", d_B), ("mean_reward", reward_2B)):
            logged[name].append(self.accelerator.gather_for_metrics(value.float().mean()).mean().item())


def _correlation(one_B: torch.Tensor, other_B: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation over the rows of a batch."""
    a_B, b_B = one_B.float() - one_B.float().mean(), other_B.float() - other_B.float().mean()
    return torch.as_tensor((a_B * b_B).sum() / (a_B.norm() * b_B.norm()).clamp_min(1e-6))


class SoftDPOTrainer(Guarded, _Columns, DPOTrainer):  # type: ignore[misc]  # TRL has no types here
    """DPOTrainer whose sigmoid loss takes soft labels and weights."""

    def __init__(self, *args: Any, processing_class: Any, **kwargs: Any) -> None:
        collator = _SoftDPOCollator(pad_token_id=processing_class.pad_token_id)
        super().__init__(*args, processing_class=processing_class, data_collator=collator, **kwargs)

    def compute_ref_log_probs(self, model: PreTrainedModel, inputs: JsonObject) -> Sequence[torch.Tensor]:
        found: Sequence[torch.Tensor] = super().compute_ref_log_probs(model, _without_labels(inputs))
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        p_B, weight_B = (inputs.get(name) for name in LABELS)
        inputs = _without_labels(inputs)
        if p_B is None and weight_B is None:
            return super()._compute_loss(model, inputs, return_outputs)
        labels_BT = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False,
            labels=labels_BT, fused_lm_head=True,
        )  # fmt: skip
        ratios = self._log_ratios(outputs, inputs)
        loss = soft_loss(self.beta * (ratios[0] - ratios[1]), p_B, weight_B)
        chosen_B, rejected_B = (self.beta * ratio_B.detach() for ratio_B in ratios)
        self._log_metrics(chosen_B, rejected_B, outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def _log_ratios(self, outputs: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """log policy - log reference, summed over each answer: chosen and rejected, each [B]."""
        chosen_B, rejected_B = outputs.log_probs.sum(1).chunk(2)
        if self.precompute_ref_logps:
            return chosen_B - inputs["ref_chosen_logps"], rejected_B - inputs["ref_rejected_logps"]
        reference = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        return chosen_B - reference[0], rejected_B - reference[1]

    def _log_metrics(
        self, chosen_B: torch.Tensor, rejected_B: torch.Tensor, outputs: Any, inputs: dict[str, Any]
    ) -> None:
        """Log the implicit rewards, entropy and log-probabilities under TRL's own names."""
        mask_BT = inputs["completion_mask"][:, 1:]
        logps_B = outputs.log_probs.detach().sum(1).chunk(2)
        values = {
            "rewards/chosen": chosen_B,
            "rewards/rejected": rejected_B,
            "rewards/margins": chosen_B - rejected_B,
            "rewards/accuracies": (chosen_B > rejected_B).float(),
            "logps/chosen": logps_B[0],
            "logps/rejected": logps_B[1],
            "entropy": (outputs.entropy.detach() * mask_BT).sum() / mask_BT.sum(),
        }
        logged = self._metrics["train" if self.model.training else "eval"]
        for name, value in values.items():
            logged[name].append(self.accelerator.gather_for_metrics(value.mean()).mean().item())


def _without_labels(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in LABELS}
