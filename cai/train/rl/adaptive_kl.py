"""An adaptive coefficient of the KL penalty to the reference model.

Ziegler et al., 2019 (arXiv 1909.08593, section 2.2): the coefficient grows while the KL is above the target and falls
while it is below, by at most a fifth of its value per `horizon` answers. PPO and TRL's trainers share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from cai.core.errors import Mistake

MAX_ERROR = 0.2
"""The relative error of one update is clipped to this."""


@dataclass
class AdaptiveKL:
    """The coefficient of the KL penalty, in reward per nat."""

    coefficient: float
    target: float | None
    """Nats per answer; None keeps the coefficient fixed."""
    horizon: int
    """Answers over which a clipped error changes the coefficient by MAX_ERROR of its value."""

    def update(self, kl: float, answers: int) -> None:
        """Adapt after `answers` answers with a mean KL of `kl` nats. Raises Mistake for a KL that is not a number."""
        if not isfinite(kl):
            raise Mistake("KL to the reference model", "is not a number", "lower the learning rate")
        if self.target is None:
            return
        error = max(-MAX_ERROR, min(MAX_ERROR, kl / self.target - 1))
        self.coefficient *= 1 + error * answers / self.horizon
