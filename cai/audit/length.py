"""Length bias. Pairs: the accuracy of always-longer and always-shorter. A reward: the gain of padding and trimming.

Length is in characters, as in `cai check`; pairs of equal length count as half right. With scores, and for a reward,
the rank correlation with length is reported without a threshold, because better answers may be longer. Both directions
count: revisions tend to be shorter, so a data set may also prefer the shorter answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from cai.audit.measure import planted as _planted
from cai.audit.measure.edit_effect import edit_findings, reward_of, texts
from cai.audit.measure.finding import Measured, around, better_first, group, measured_finding
from cai.audit.measure.planted import planted_reward
from cai.core.config import Knobs
from cai.core.plugin_types import Case, Exhibit, Finding, Probe, Subject


class Options(Knobs):
    """Thresholds."""

    threshold: float = 0.6
    """Accuracy of always-longer, or share of prompts with a longer new answer; as far below one half as well."""
    moved: float = 0.25
    """Reward gain of padding or trimming, in units of the reward's spread."""


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Accuracy of always-longer and of always-shorter against p, and the correlation of scores with length."""
    cases = list(better_first(exhibit.cases))
    longer = [Measured(case.id, group(case.prompt), _right(case)) for case in cases]
    note = f"median length of chosen over rejected {_ratio(cases):.2f}" if cases else ""
    yield measured_finding("length", "accuracy of always-longer", longer, around(0.5, options.threshold), note=note)
    shorter = [row._replace(value=1 - row.value) for row in longer]
    yield measured_finding("length", "accuracy of always-shorter", shorter, None)
    scored = [(case.scores, case) for case in cases if case.scores]
    points = [(score, len(text)) for scores, case in scored for score, text in zip(scores, _answers(case), strict=True)]
    if points:
        yield correlation("correlation of the file's scores with length", points)


def reward(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Reward gain of padding and trimming, and the correlation of the reward with length."""
    yield from edit_findings("length", exhibit, options.moved, ("pad", "trim"), controlled=False)
    rows = list(texts(exhibit.cases))
    found = reward_of(exhibit)([(case.prompt, text) for case, text in rows])
    points = [(score, len(text)) for score, (_, text) in zip(found, rows, strict=True)]
    yield correlation("correlation of the reward with length", points)


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """How often the new policy's answer is longer."""
    rows = [Measured(case.id, group(case.prompt), _longer(*_answers(case))) for case in exhibit.cases]
    note = f"median length of new over old {_ratio(exhibit.cases):.2f}" if exhibit.cases else ""
    yield measured_finding(
        "length", "prompts answered longer than before", rows, around(0.5, options.threshold), note=note
    )


def correlation(what: str, points: list[tuple[float, int]]) -> Finding:
    """Spearman's correlation, without an interval; None for fewer than three points or for equal ones."""
    from scipy.stats import spearmanr

    few = len(points) < 3 or any(len(set(values)) == 1 for values in zip(*points, strict=True))
    value = None if few else float(spearmanr(points)[0])
    return Finding("length", what, value, None, None, None, None, n=len(points), note="reported, no threshold")


def _answers(case: Case) -> tuple[str, str]:
    return case.answer, case.other


def _longer(one: str, other: str) -> float:
    return (len(one) > len(other)) + (len(one) == len(other)) / 2


def _right(case: Case) -> float:
    """Probability that always-longer chooses the better answer."""
    longer = _longer(case.answer, case.other)
    return longer if longer == 0.5 else case.p if longer else 1 - case.p


def _ratio(cases: Sequence[Case]) -> float:
    return median(len(case.answer) / max(1, len(case.other)) for case in cases)


def planted(subject: Subject, seed: int) -> Exhibit:
    """The longer answer is chosen in 80 % of the pairs; or a reward that grows with words."""
    if subject == "reward":
        return planted_reward(seed, lambda asked, answer: 0.05 * len(answer.split()))
    return Exhibit(_planted.cases(seed, _by_length, 0.6))


def _by_length(case: Case, rng: random.Random) -> Case:
    short, long = sorted(_answers(case), key=len)
    return replace(case, answer=long, other=short)


def clean(subject: Subject, seed: int) -> Exhibit:
    """Length is independent of which answer is better."""
    return planted_reward(seed) if subject == "reward" else Exhibit(_planted.cases(seed))


PROBE = Probe(
    looks={"pairs": pairs, "reward": reward, "policy": policy},
    options=Options,
    planted=planted,
    clean=clean,
    effect={
        "pairs": "the longer answer chosen in 80 % of 200 pairs",
        "reward": "0.05 added to the reward for each word, where a good word adds 1",
        "policy": "the new answer longer on 80 % of 200 prompts",
    },
    about="length bias: always-longer and always-shorter, and the reward gain of padding or trimming",
)
