"""Two answers, one question: a rationale, then the verdict's probability, clamped near 1/2 (arXiv 2212.08073, 4.1).

After its own rationale a model is nearly always certain, right or wrong. Labels clamped to [0.4, 0.6] trained the best
models in the paper, [0.2, 0.8] the second best.

Left out on purpose: several rationales. In RLAIF (arXiv 2309.00267) self-consistency lowered the agreement with people.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cai.core.config import Knobs
from cai.core.plugin_types import Judge
from cai.core.types import Comparison, Opinion, Sampling
from cai.judges.panel.ask import LETTERS, JudgeContext, both_answers
from cai.templates.sandbox import Untrusted


class Options(Knobs):
    """How the rationale is sampled, and how the verdict's probability is clamped."""

    clamp: Annotated[float, Field(ge=0, le=0.5)] = 0.4
    """p is clamped to [clamp, 1 - clamp]; 0 leaves it unchanged."""
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 256


async def judge(asked: Comparison, context: JudgeContext, options: Options) -> Opinion:
    """P(A) after a rationale, clamped. Raises CallFailed."""
    values = both_answers(asked) | {"rationale": Untrusted("")}
    sampling = Sampling(options.temperature, max_tokens=options.max_tokens, stop=context.template.header.stop)
    rationale = await context.rationale(values, asked.id, sampling, asked.principle.id, asked.swapped)
    odds = await context.odds(values | {"rationale": Untrusted(rationale.text.strip())}, asked.id, LETTERS)
    p = min(1 - options.clamp, max(options.clamp, odds.shares[0]))
    return Opinion(p, rationale.text.strip(), mass=odds.mass)


JUDGE = Judge(
    options=Options,
    judge=judge,
    about="a rationale, then the options' probabilities, clamped",
    asks="cot",
    offers=frozenset({"conversation", "first", "second", "principle", "rationale"}),
    calls=lambda options, principle: 2,
)
