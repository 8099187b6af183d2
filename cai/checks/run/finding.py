"""What a check of preference pairs can find: each kind with its severity, what it means and what to do about it.

Left out on purpose: a verdict on the data set as a whole. Which of these matter depends on what it is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from cai.checks.run.fingerprints import PairFingerprint
from cai.checks.run.options import Options
from cai.core.stats import Interval

Severity = Literal["error", "warning"]
"""`error`: a trainer learns nothing or something wrong from these rows. `warning`: it may learn what was not meant."""
EXAMPLES = 5
ENOUGH = 30
"""Pairs below which a tendency is not judged: chance alone would look like one."""


class About(NamedTuple):
    """What a kind of finding is."""

    severity: Severity
    meaning: str
    tendency: bool = False
    """Whether it is a property of many rows, which a few rows cannot show, and not a fault of each."""
    neutral: float | None = None
    """For a tendency that can go either way, what a set without it would have."""


KINDS: Mapping[str, About] = {
    "bad_rows": About("error", "rows that are no pair; a trainer stops there or drops them: mend or delete them"),
    "no_pairs": About("error", "files that hold no pair at all: check the path and the format"),
    "no_prompt": About("error", "pairs without a prompt, which teach the answer to no question: add it or drop them"),
    "several_turns": About(
        "warning",
        "the two conversations part before the last answer, so a user's words are learned too: cut them at the fork",
    ),
    "empty": About("error", "one side is blank, which teaches to say nothing or to say anything: drop these pairs"),
    "identical": About("error", "both answers are the same, so there is nothing to prefer: drop these pairs"),
    "near_identical": About(
        "warning",
        "both answers are nearly the same, so the loss moves on noise: drop them unless the edit is the point",
    ),
    "identical_when_cut": About(
        "error", "both answers are the same once cut at max_length: raise max_length or drop these pairs"
    ),
    "shared_start": About(
        "warning",
        "both answers begin alike for half of the shorter one, and only what follows is learned: sample them apart",
        tendency=True,
    ),
    "length_ratio": About(
        "warning",
        "one answer is many times as long as the other, which outweighs what it says: pair like lengths",
        tendency=True,
    ),
    "length_skew": About(
        "warning",
        "where one answer is many times as long it is mostly the same side, and length alone decides these pairs: pair"
        " like lengths",
        tendency=True,
        neutral=0.0,
    ),
    "always_longer": About(
        "warning",
        "preferring the longer answer (below one half: the shorter) gets so many pairs right, and a model may learn"
        " only that: balance lengths, or normalise by length in training",
        tendency=True,
        neutral=0.5,
    ),
    "refusals": About(
        "warning",
        "one side refuses more often than the other, so refusing (or never refusing) is learned: add pairs of the"
        " other kind",
        tendency=True,
        neutral=0.0,
    ),
    "openings": About(
        "warning",
        "many answers of one side begin with the same words: vary how they are generated, or strip them",
        tendency=True,
    ),
    "boilerplate": About(
        "warning",
        "a phrase tells the sides apart and can be learned in place of the preference: strip or balance it",
        tendency=True,
        neutral=0.0,
    ),
    "think_blocks": About(
        "error", "reasoning is marked otherwise on one side than on the other, and the marks are learned: strip it"
    ),
    "language": About("warning", "the two answers are in different languages, and the language is learned: drop them"),
    "duplicates": About("warning", "rows that came before word for word, and count twice: drop them"),
    "near_duplicates": About(
        "warning",
        "rows that nearly came before, prompt and answers: drop copies; a template counts as often as it is used",
    ),
    "contradictions": About(
        "error", "the same two answers to the same prompt, preferred the other way round: settle them or drop both"
    ),
    "leakage": About("error", "held-out rows whose prompt is in another split too: split by prompt"),
    "near_leakage": About(
        "warning", "held-out rows whose prompt is nearly one of another split: split by groups of near-duplicates"
    ),
    "inverted_scores": About(
        "error", "the row's own scores prefer the rejected answer: swap the sides, or mend what parsed the scores"
    ),
    "score_outliers": About(
        "warning", "scores far from all others, as of a 10 that was a 1: look at the raw verdicts of these rows"
    ),
}
"""Every kind of finding, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for: how much of it there is, and whether that is too much."""

    name: str
    value: Interval
    """A share of rows; of `always_longer` an accuracy, of `length_skew`, `refusals` and `boilerplate` a share of
    chosen minus one of rejected."""
    threshold: float
    """The largest value that passes, or the largest distance from `neutral`."""
    neutral: float | None
    passed: bool
    severity: Severity
    rows: int
    """Rows that show it."""
    examples: tuple[str, ...]
    """Ids of some of them."""
    saw: tuple[str, ...]
    """What was seen, in words."""
    meaning: str


class Check(Protocol):
    """Something that looks at every pair once, and says at the end what it found."""

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        ...

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        ...


def check_finding(
    name: str,
    value: Interval,
    options: Options,
    *,
    rows: int,
    examples: tuple[str, ...] = (),
    saw: tuple[str, ...] = (),
) -> Finding:
    """A finding, judged by its threshold."""
    about, threshold = KINDS[name], float(getattr(options, name))
    passed = _passes(value, threshold, about)
    return Finding(
        name,
        value,
        threshold,
        about.neutral,
        passed,
        about.severity,
        rows,
        examples if rows else (),
        saw,
        about.meaning,
    )


def _passes(value: Interval, threshold: float, about: About) -> bool:
    if value.value is None or (about.tendency and value.n < ENOUGH):
        return True
    if about.neutral is None:
        return abs(value.value) <= threshold
    if value.low is None or value.high is None:
        return True
    # large, and not by chance: the interval has to keep clear of neutral, by half of what is allowed
    nearest = max(value.low - about.neutral, about.neutral - value.high)
    return abs(value.value - about.neutral) <= threshold or nearest <= threshold / 2


@dataclass(slots=True)
class RowTally:
    """Rows that show something, with the first of their ids."""

    rows: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, id: str) -> None:
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(id)
