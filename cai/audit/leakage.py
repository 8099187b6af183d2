"""Words of the constitution or of a critique in answers: text for the model that reached the user.

An answer leaks where it has a run of words from those texts that is not in the conversation, or mentions its critique
or revision. Without such texts only such mentions are counted. Runs shorter than `words` are not: principles and
answers share words because they share a subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from cai.audit.measure.finding import Tolerance, measured_finding, minus
from cai.audit.measure.planted import worded
from cai.core.config import Knobs
from cai.core.phrases import words
from cai.core.plugin_types import Case, Exhibit, Finding, Probe, Subject


class Options(Knobs):
    """Thresholds."""

    threshold: float = 0.02
    """Share of answers that leak on one side minus the share on the other."""
    words: int = 8
    """Consecutive words of a principle or a critique that count as a leak."""


_MENTIONS = re.compile(
    r"\b(?:the|this|your|my|above) (?:critique|criticism|constitutional principle)\b"
    r"|\b(?:my|the) (?:revised|rewritten|original|previous) (?:response|answer|draft)\b"
    r"|\bi(?:['’]ve| have)? (?:revised|rewritten|rewrote) (?:the|my|this) (?:response|answer|draft|text)\b"
    r"|\b(?:according to|in line with|as required by) (?:my|the) (?:constitution|principles?)\b",
    re.IGNORECASE,
)


def leaks(text: str, asked: str, runs: frozenset[tuple[str, ...]], size: int) -> bool:
    """Whether an answer contains text that was not meant for the user."""
    if any(found[0].lower() not in asked.lower() for found in _MENTIONS.finditer(text)):
        return True
    shared = _runs(text, size) & runs if runs else frozenset()
    return bool(shared - _runs(asked, size))


def _runs(text: str, size: int) -> frozenset[tuple[str, ...]]:
    listed = words(text)
    return frozenset(zip(*(islice(listed, start, None) for start in range(size)), strict=False))


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of leaks among chosen minus share among rejected."""
    yield _between(exhibit, options, ("chosen", "rejected"))


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of leaks in the new policy's answers minus share in the old policy's."""
    yield _between(exhibit, options, ("new", "old"))


def _between(exhibit: Exhibit, options: Options, names: tuple[str, str]) -> Finding:
    runs = frozenset[tuple[str, ...]]().union(*(_runs(text, options.words) for text in exhibit.texts))

    def leak(case: Case, text: str) -> float:
        asked = "\n".join(message.content for message in case.prompt)
        return float(leaks(text, asked, runs, options.words))

    rows, note = minus(exhibit, leak, names)
    note += "" if runs or not note else "; no constitution given: only mentions of critique and revision were counted"
    return measured_finding(
        "leakage", f"leaks, {names[0]} minus {names[1]}", rows, Tolerance(options.threshold), note=note
    )


PRINCIPLE = "Choose the answer that is wisest, most ethical, most polite and friendly to everybody who may read it."


def planted(subject: Subject, seed: int) -> Exhibit:
    """The text of a principle in one of five chosen answers."""
    return worded(seed, PRINCIPLE, usual=0.02, more=0.2, at="end")


def clean(subject: Subject, seed: int) -> Exhibit:
    """Equally few leaks on both sides."""
    return worded(seed, PRINCIPLE, usual=0.05, at="end")


PROBE = Probe(
    looks={"pairs": pairs, "policy": policy},
    options=Options,
    planted=planted,
    clean=clean,
    effect={
        "pairs": "a principle in 22 % of 200 chosen answers, and 2 % of rejected",
        "policy": "a principle in 22 % of 200 new answers, and 2 % of old",
    },
    about="words of the constitution or of critiques in answers",
)
