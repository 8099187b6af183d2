"""One answer at a time: how much more likely its tokens become when the prompt says that it is better by the principle.

contrast = mean log-likelihood under the principle - the same under its opposite, or under no principle at all;
p = logistic((contrast of first - contrast of second) / scale). The likelihood under no principle, compared in the same
way, is the control: it depends on no principle and so measures fluency. It is reported beside every p.

Left out on purpose: a scale for every model. `cai judge-card` fits a temperature.
"""

from __future__ import annotations

from math import exp
from typing import Annotated, Literal

from pydantic import Field

from cai.core.concurrency import together
from cai.core.config import Knobs
from cai.core.plugin_types import Judge
from cai.core.types import Comparison, Opinion
from cai.judges.panel.ask import JudgeContext, one_answer, rate_both


class Options(Knobs):
    """What the likelihood under the principle is compared with, and how a difference becomes a probability."""

    against: Literal["opposite", "none"] = "opposite"
    scale: Annotated[float, Field(gt=0)] = 0.1
    """Nats per token; smaller gives more extreme probabilities."""


async def judge(asked: Comparison, context: JudgeContext, options: Options) -> Opinion:
    """p from the contrast of mean log-likelihoods, with its no-principle control. Raises CallFailed."""

    async def rate(answer: str) -> tuple[float, float]:
        stances = ("under", options.against, "none")
        under, against, none = await together(
            context.fluency(one_answer(asked, answer) | {"stance": stance}, asked.id, answer) for stance in stances
        )
        return under - against, none

    (first, plain), (second, other) = await rate_both(asked, rate)
    control = _logistic((plain - other) / options.scale)
    return Opinion(_logistic((first - second) / options.scale), scores=(first, second), control=control)


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


JUDGE = Judge(
    options=Options,
    judge=judge,
    about="contrast of mean log-likelihoods, with its no-principle control",
    asks="likelihood",
    offers=frozenset({"conversation", "principle", "stance"}),
    order=False,
    calls=lambda options, principle: 6 if options.against == "opposite" else 4,
)
