"""The price of leaving the model one started from: a coefficient that is steered towards a target KL.

Ziegler et al., 2019 (arXiv 1909.08593, section 2.2): the coefficient grows while the policy is further from its start
than the target, and falls while it is nearer, by at most a fifth of its value per `horizon` answers.

Left out on purpose: torch, so that PPO and TRL's trainers share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from cai.core.errors import Mistake

MOST = 0.2
"""The relative error of one update counts for no more than this."""


@dataclass
class AdaptiveKL:
    """The coefficient of the KL penalty, in reward per nat."""

    coefficient: float
    target: float | None
    """Nats per answer; None keeps the coefficient as it is."""
    horizon: int
    """Answers over which a full error changes the coefficient by MOST of its value."""

    def update(self, kl: float, answers: int) -> None:
        """After `answers` answers of which the mean KL was `kl` nats. Raises Mistake for a KL that is no number."""
        if not isfinite(kl):
            raise Mistake("KL to the start", "is not a number", "lower the learning rate")
        if self.target is None:
            return
        error = max(-MOST, min(MOST, kl / self.target - 1))
        self.coefficient *= 1 + error * answers / self.horizon
