"""Phrases that one side uses more than the other, found without a list of phrases (see `cai.core.phrases`).

A phrase that was found may be intended; the examples show it in context.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest

from cai.audit.measure.finding import Measured, Tolerance, better_first, group, measured_finding
from cai.audit.measure.planted import worded
from cai.core.config import Knobs
from cai.core.phrases import AnswerWindows, answer_windows, find_phrases
from cai.core.plugin_types import Case, Exhibit, Finding, Probe, Subject
from cai.core.seeds import uniform

SAMPLE = 3000
"""Maximum rows that are tested, drawn by digest."""


class Options(Knobs):
    """Thresholds."""

    threshold: float = 0.05
    """Difference of the share of answers with the phrase between the sides."""
    most: int = 5
    """Maximum phrases that are reported."""


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Phrases more frequent in chosen or in rejected."""
    yield from _findings(list(better_first(exhibit.cases)), options, ("chosen", "rejected"))


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Phrases more frequent in the answers of the new or of the old policy."""
    yield from _findings(list(exhibit.cases), options, ("new", "old"))


def _findings(cases: list[Case], options: Options, names: tuple[str, str]) -> Iterator[Finding]:
    if len(cases) > SAMPLE:
        cases = nsmallest(SAMPLE, cases, key=lambda case: uniform("phrases", case.id))
    numbers: dict[object, int] = {}
    prompts = [numbers.setdefault(group(case.prompt), len(numbers)) for case in cases]
    couples = [answer_windows(case.id, n, case.other, case.answer) for case, n in zip(cases, prompts, strict=True)]
    found = find_phrases(couples, most=options.most)
    limit = Tolerance(options.threshold)
    if not found:
        zero = [Measured(made.id, made.prompt, 0.0) for made in couples]
        note = "no phrase differs significantly between the sides"
        yield measured_finding("phrases", f"phrases, {names[0]} against {names[1]}", zero, limit, note=note)
    for phrase in found:
        sign = 1 if phrase.after >= phrase.before else -1
        rows = [Measured(made.id, made.prompt, sign * _difference(phrase.text, made)) for made in couples]
        shares = f"{names[0]} {100 * phrase.after:.1f} %, {names[1]} {100 * phrase.before:.1f} %"
        note = f"{shares}; in {phrase.prompts} prompts, corrected p {phrase.p:.2g}"
        what = f"{phrase.text!r} more in {names[0] if sign > 0 else names[1]}"
        yield measured_finding("phrases", what, rows, limit, looks=options.most, note=note)


def _difference(text: str, made: AnswerWindows) -> float:
    gram = f" {text} "
    has = [any(gram in f" {' '.join(part)} " for part in side) for side in (made.after, made.before)]
    return float(has[0]) - float(has[1])


def planted(subject: Subject, seed: int) -> Exhibit:
    """A phrase at the end of 31 % of the answers on one side, and of 2 % on the other."""
    return worded(seed, "I am here to listen.", usual=0.02, more=0.3, at="end")


def clean(subject: Subject, seed: int) -> Exhibit:
    """A phrase equally frequent on both sides."""
    return worded(seed, "I am here to listen.", usual=0.2, at="end")


PROBE = Probe(
    looks={"pairs": pairs, "policy": policy},
    options=Options,
    planted=planted,
    clean=clean,
    effect={
        "pairs": "five words in 31 % of 200 chosen answers, and 2 % of rejected",
        "policy": "five words in 31 % of 200 new answers, and 2 % of old",
    },
    about="phrases more frequent on one side, found without a list, corrected for multiple tests",
)
