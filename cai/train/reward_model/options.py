"""Options of reward model training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cai.train.trl.options import TrainingOptions

Feature = Literal["markup", "preamble"]


class Options(TrainingOptions):
    soft: bool = True
    """Use p_chosen and weight. False takes every label as certain, a run's revision as better than its draft whatever a
    judge said, and leaves ties out."""
    margins: bool = False
    """Require the reward difference in each row's `margin` (Llama 2, arXiv 2307.09288, eq. 2)."""
    center: Annotated[float, Field(ge=0)] = 0.01
    """Weight of (r_chosen + r_rejected)^2, which centres rewards on 0."""
    length: Literal["none", "margin", "penalty"] = "none"
    """`margin` explains length away by a fitted term; `penalty` penalises its correlation with reward in a batch."""
    length_weight: Annotated[float, Field(ge=0)] = 0.3
    """Weight of the penalty."""
    nuisance: tuple[Feature, ...] = ()
    """Other features explained away by a fitted term: list markup, preambles."""
    members: Annotated[int, Field(ge=1, le=64)] = 1
    """Members of the ensemble."""

    @model_validator(mode="after")
    def _members_are_adapters(self) -> Options:
        if self.members > 1 and not self.r:
            raise ValueError("members share a backbone and differ in their LoRA adapters; set r: 16, or members: 1")
        return self
