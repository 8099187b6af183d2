"""One answer at a time: its expected score, 1 to 10, by the ten scores' probabilities (direct RLAIF, arXiv 2309.00267).

p = P(first scores higher) + half of P(equal scores), the two scores drawn independently. `rate` alone, rescaled to
[-1, 1], is the reward of direct RLAIF.

Left out on purpose: reading a bare digit. `1` is also how `10` begins; `(1)` is not how `(10)` begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from cai.core.config import Knobs
from cai.core.plugin_types import Judge
from cai.core.types import Comparison, Opinion
from cai.judges.panel.ask import JudgeContext, one_answer, rate_both

SCORES = tuple(f"({score})" for score in range(1, 11))


class Options(Knobs):
    """Nothing to set: the scale is the template's."""


@dataclass(frozen=True, slots=True)
class Rating:
    """Probabilities of the scores 1 to 10, and the total probability of all of them."""

    shares: tuple[float, ...]
    mass: float

    @property
    def score(self) -> float:
        """Expected score, 1 to 10."""
        return sum(score * share for score, share in enumerate(self.shares, 1))

    @property
    def reward(self) -> float:
        """The expected score rescaled to [-1, 1]."""
        return (self.score - 5.5) / 4.5


async def rate_answer(asked: Comparison, context: JudgeContext, answer: str) -> Rating:
    """One answer's scores. Raises CallFailed."""
    odds = await context.odds(one_answer(asked, answer), asked.id, SCORES)
    return Rating(odds.shares, odds.mass)


async def judge(asked: Comparison, context: JudgeContext, options: Options) -> Opinion:
    """p from both answers' scores. Raises CallFailed."""
    first, second = await rate_both(asked, lambda answer: rate_answer(asked, context, answer))
    scores = first.score, second.score
    return Opinion(higher(first.shares, second.shares), scores=scores, mass=(first.mass + second.mass) / 2)


def higher(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """P(a draw from `first` is higher) + half of P(equal)."""
    below, p = 0.0, 0.0
    for mine, other in zip(first, second, strict=True):
        p += mine * (below + other / 2)
        below += other
    return p


JUDGE = Judge(
    options=Options,
    judge=judge,
    about="expected score of 1 to 10, one answer at a time",
    asks="score",
    offers=frozenset({"conversation", "answer", "principle"}),
    order=False,
    calls=lambda options, principle: 2,
)
