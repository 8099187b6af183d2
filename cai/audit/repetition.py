"""Repetitive answers: how often each side has them, and the reward gain of repetition."""

from __future__ import annotations

from collections.abc import Iterator

from cai.audit.measure.edit_effect import edit_findings
from cai.audit.measure.finding import Tolerance, measured_finding, minus
from cai.audit.measure.planted import planted_reward, worded
from cai.core.config import Knobs
from cai.core.phrases import words
from cai.core.plugin_types import Case, Exhibit, Finding, Probe, Subject

SIZE = 4
"""Words of an n-gram."""


class Options(Knobs):
    """Thresholds."""

    threshold: float = 0.05
    """Share of repetitive answers on one side minus the share on the other."""
    moved: float = 0.25
    """Reward gain of a repeated sentence, in units of the reward's spread."""
    repeated: float = 0.2
    """Share of repeated word 4-grams from which an answer counts as repetitive."""


def repeated(text: str) -> float:
    """Share of the word 4-grams that occurred earlier in the text; 0 for a text without 4-grams."""
    listed = words(text)
    grams = list(zip(*(listed[start:] for start in range(SIZE)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of repetitive answers among chosen minus share among rejected."""
    yield from _between(exhibit, options, ("chosen", "rejected"))


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of repetitive answers of the new policy minus share of the old policy's."""
    yield from _between(exhibit, options, ("new", "old"))


def reward(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Reward gain of repeating the last sentence three times."""
    yield from edit_findings("repetition", exhibit, options.moved, ("repeat",))


def _between(exhibit: Exhibit, options: Options, names: tuple[str, str]) -> Iterator[Finding]:
    def repetitive(case: Case, text: str) -> float:
        return float(repeated(text) >= options.repeated)

    rows, note = minus(exhibit, repetitive, names)
    what = f"repetitive answers, {names[0]} minus {names[1]}"
    yield measured_finding("repetition", what, rows, Tolerance(options.threshold), note=note)


LOOP = "And so it goes on and on. " * 8


def planted(subject: Subject, seed: int) -> Exhibit:
    """A sentence repeated eight times in a quarter of the chosen answers; or a reward that favours it."""
    if subject == "reward":
        return planted_reward(seed, lambda asked, answer: 6.0 * repeated(answer))
    return worded(seed, LOOP, usual=0.03, more=0.25, at="end")


def clean(subject: Subject, seed: int) -> Exhibit:
    """Equally much repetition on both sides, or a reward that ignores it."""
    return planted_reward(seed) if subject == "reward" else worded(seed, LOOP, usual=0.1, at="end")


PROBE = Probe(
    looks={"pairs": pairs, "reward": reward, "policy": policy},
    options=Options,
    planted=planted,
    clean=clean,
    effect={
        "pairs": "a sentence eight times in 27 % of 200 chosen answers, and 3 % of rejected",
        "reward": "6 times the share of repeated 4-grams added to the reward",
        "policy": "a sentence eight times in 27 % of 200 new answers, and 3 % of old",
    },
    about="repetitive answers",
)
