"""Answers that say the same again and again: which side has them, and whether a reward pays for it.

Left out on purpose: refrains that were asked for, as in a song.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.audit.measure.edit_effect import edit_findings
from cai.audit.measure.finding import Tolerance, measured_finding, minus
from cai.audit.measure.planted import planted_reward, worded
from cai.core.config import Knobs
from cai.core.phrases import words
from cai.core.plugin_types import Case, Exhibit, Finding, Probe, Subject

SIZE = 4
"""Words of a run that is said again."""


class Options(Knobs):
    """Thresholds."""

    threshold: float = 0.05
    """Share of repeating answers on one side, above the other side's."""
    moved: float = 0.25
    """What saying a sentence again may add to a reward, in its spread."""
    repeated: float = 0.2
    """Share of an answer's word 4-grams that came before in it, from which the answer counts as repeating."""


def repeated(text: str) -> float:
    """Share of the word 4-grams that came before in the text; 0 for one that is too short to have any."""
    listed = words(text)
    grams = list(zip(*(listed[start:] for start in range(SIZE)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of repeating answers among chosen minus share among rejected."""
    yield from _between(exhibit, options, ("chosen", "rejected"))


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of repeating answers of the new policy minus share of the old one's."""
    yield from _between(exhibit, options, ("new", "old"))


def reward(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """What saying the last sentence three times more earns."""
    yield from edit_findings("repetition", exhibit, options.moved, ("repeat",))


def _between(exhibit: Exhibit, options: Options, names: tuple[str, str]) -> Iterator[Finding]:
    def sign(case: Case, text: str) -> float:
        return float(repeated(text) >= options.repeated)

    rows, note = minus(exhibit, sign, names)
    what = f"repeating answers, {names[0]} minus {names[1]}"
    yield measured_finding("repetition", what, rows, Tolerance(options.threshold), note=note)


LOOP = "And so it goes on and on. " * 8


def planted(subject: Subject, seed: int) -> Exhibit:
    """A sentence said over and over in a quarter of the chosen answers; or a reward that likes it."""
    if subject == "reward":
        return planted_reward(seed, lambda asked, answer: 6.0 * repeated(answer))
    return worded(seed, LOOP, usual=0.03, more=0.25, at="end")


def clean(subject: Subject, seed: int) -> Exhibit:
    """As much repetition on either side, or the reward does not mind."""
    return planted_reward(seed) if subject == "reward" else worded(seed, LOOP, usual=0.1, at="end")


PROBE = Probe(
    looks={"pairs": pairs, "reward": reward, "policy": policy},
    options=Options,
    planted=planted,
    clean=clean,
    effect={
        "pairs": "a sentence eight times in 27 % of 200 chosen answers, and 3 % of rejected",
        "reward": "6 of reward, times the share of 4-grams that repeat",
        "policy": "a sentence eight times in 27 % of 200 new answers, and 3 % of old",
    },
    about="saying the same again and again",
)
