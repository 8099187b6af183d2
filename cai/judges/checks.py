"""One answer at a time: the principle's atomic yes/no questions (rule-based rewards, arXiv 2411.01111).

p = P(first passes and second does not) + half of P(both or neither), a check drawn at random and each answer's reply on
its own; that is 1/2 + (yes of first - yes of second) / 2, averaged over the checks.

Left out on purpose: weights for single checks. Use two principles to count a check twice.
"""

from __future__ import annotations

from statistics import fmean

from cai.core.concurrency import together
from cai.core.config import Knobs
from cai.core.plugin_types import Judge
from cai.core.types import Comparison, Opinion
from cai.judges.panel.ask import JudgeContext, one_answer, rate_both


class Options(Knobs):
    """Nothing to set: the checks are the constitution's."""


async def judge(asked: Comparison, context: JudgeContext, options: Options) -> Opinion:
    """p from the checks that each answer passes. Raises CallFailed."""

    async def rate(answer: str) -> tuple[float, float]:
        values = one_answer(asked, answer)
        questions = (values | {"question": check} for check in asked.principle.checks)
        odds = await together(context.odds(question, asked.id, ("Yes", "No")) for question in questions)
        return fmean(one.shares[0] for one in odds), fmean(one.mass for one in odds)

    (first, mass), (second, other) = await rate_both(asked, rate)
    return Opinion(0.5 + (first - second) / 2, scores=(first, second), mass=(mass + other) / 2)


JUDGE = Judge(
    options=Options,
    judge=judge,
    about="atomic yes/no questions, one answer at a time",
    asks="checks",
    offers=frozenset({"conversation", "answer", "question"}),
    order=False,
    needs="checks",
    calls=lambda options, principle: 2 * len(principle.checks),
)
