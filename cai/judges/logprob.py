"""Two answers, one question: the probabilities of the options (A) and (B) (arXiv 2212.08073, 4.1; 2309.00267, 2.2).

The target is the probability itself, not rounded: for preference models soft labels are better than hard ones.

Left out on purpose: reading the letter alone. How `(A` is cut into tokens differs between models; whole strings do not.
"""

from __future__ import annotations

from cai.core.config import Knobs
from cai.core.plugin_types import Judge
from cai.core.types import Comparison, Opinion
from cai.judges.panel.ask import LETTERS, JudgeContext, both_answers


class Options(Knobs):
    """Nothing to set: the question is the template's."""


async def judge(asked: Comparison, context: JudgeContext, options: Options) -> Opinion:
    """P(A) among (A) and (B). Raises CallFailed."""
    odds = await context.odds(both_answers(asked), asked.id, LETTERS)
    return Opinion(odds.shares[0], mass=odds.mass)


JUDGE = Judge(options=Options, judge=judge, about="probabilities of the options; the model must give log-probabilities")
