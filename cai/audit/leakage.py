"""The constitution's or the critique's words in answers: what was said to the model, said on to the user.

An answer leaks where it has a run of words from those texts that is not in the conversation, or talks about its own
critique and revision. Without such texts only the talk is looked for.

Left out on purpose: what principles and answers share because they share a subject. Runs shorter than `words` are that.
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
    """Share of answers that leak on the one side, above the other side's."""
    words: int = 8
    """Words in a row, from a principle or a critique, that make a leak."""


_TALK = re.compile(
    r"\b(?:the|this|your|my|above) (?:critique|criticism|constitutional principle)\b"
    r"|\b(?:my|the) (?:revised|rewritten|original|previous) (?:response|answer|draft)\b"
    r"|\bi(?:['’]ve| have)? (?:revised|rewritten|rewrote) (?:the|my|this) (?:response|answer|draft|text)\b"
    r"|\b(?:according to|in line with|as required by) (?:my|the) (?:constitution|principles?)\b",
    re.IGNORECASE,
)


def leaks(text: str, asked: str, runs: frozenset[tuple[str, ...]], size: int) -> bool:
    """Whether an answer has what was not meant for the user."""
    if any(found[0].lower() not in asked.lower() for found in _TALK.finditer(text)):
        return True
    held = _runs(text, size) & runs if runs else frozenset()
    return bool(held - _runs(asked, size))


def _runs(text: str, size: int) -> frozenset[tuple[str, ...]]:
    listed = words(text)
    return frozenset(zip(*(islice(listed, start, None) for start in range(size)), strict=False))


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of leaks among chosen minus share among rejected."""
    yield _between(exhibit, options, ("chosen", "rejected"))


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Share of leaks in the new policy's answers minus share in the old one's."""
    yield _between(exhibit, options, ("new", "old"))


def _between(exhibit: Exhibit, options: Options, names: tuple[str, str]) -> Finding:
    said = frozenset[tuple[str, ...]]().union(*(_runs(text, options.words) for text in exhibit.texts))

    def sign(case: Case, text: str) -> float:
        asked = "\n".join(message.content for message in case.prompt)
        return float(leaks(text, asked, said, options.words))

    rows, note = minus(exhibit, sign, names)
    note += (
        "" if said or not note else "; no constitution at hand: only talk about critique and revision was looked for"
    )
    return measured_finding(
        "leakage", f"leaks, {names[0]} minus {names[1]}", rows, Tolerance(options.threshold), note=note
    )


PRINCIPLE = "Choose the answer that is wisest, most ethical, most polite and friendly to everybody who may read it."


def planted(subject: Subject, seed: int) -> Exhibit:
    """The text of a principle in one of five chosen answers."""
    return worded(seed, PRINCIPLE, usual=0.02, more=0.2, at="end")


def clean(subject: Subject, seed: int) -> Exhibit:
    """The odd leak on either side."""
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
    about="the constitution's or the critique's words in answers",
)
