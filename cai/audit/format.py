"""Bullets, headings and bold: how often each side has them, and the reward of the same content in another format.

It is not tested whether a format suits the question: a data set may prefer lists where lists were asked for. A finding
says only that format alone distinguishes the sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cai.audit.measure.edit_effect import edit_findings
from cai.audit.measure.finding import around, measured_finding, minus
from cai.audit.measure.planted import planted_reward, worded
from cai.core.config import Knobs
from cai.core.plugin_types import Exhibit, Finding, Probe, Subject


class Options(Knobs):
    """Thresholds."""

    threshold: float = 0.15
    """Difference of the share of answers with bullets (headings, bold) between the sides."""
    moved: float = 0.25
    """Reward gain of another format, in units of the reward's spread."""


MARKUP = {
    "bullets": re.compile(r"^\s{0,8}(?:[-*•+]|\d{1,2}[.)])\s+\S", re.MULTILINE),
    "headings": re.compile(r"^\s{0,3}#{1,6}\s+\S", re.MULTILINE),
    "bold": re.compile(r"\*\*\S[^*\n]*\*\*|__\S[^_\n]*__"),
}


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """For each kind of markup, share among chosen minus share among rejected."""
    yield from _between(exhibit, options, ("chosen", "rejected"))


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """For each kind of markup, share of the new policy's answers minus share of the old policy's."""
    yield from _between(exhibit, options, ("new", "old"))


def reward(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Reward gain of the same sentences as bullets, under headings, in bold, and plain."""
    yield from edit_findings("format", exhibit, options.moved, ("bullets", "headings", "bold", "plain"))


def _between(exhibit: Exhibit, options: Options, names: tuple[str, str]) -> Iterator[Finding]:
    for what, pattern in MARKUP.items():
        rows, note = minus(exhibit, lambda case, text, pattern=pattern: float(bool(pattern.search(text))), names)  # type: ignore[misc]  # a default binds it
        limit = around(0.0, options.threshold)
        yield measured_finding(
            "format", f"{what}, {names[0]} minus {names[1]}", rows, limit, looks=len(MARKUP), note=note
        )


LIST = "\n- one\n- two"


def planted(subject: Subject, seed: int) -> Exhibit:
    """A list added to half of the chosen answers; or a reward that favours asterisks."""
    if subject == "reward":
        return planted_reward(seed, lambda asked, answer: 2.0 * ("**" in answer))
    return worded(seed, LIST, usual=0.2, more=0.5, at="end")


def clean(subject: Subject, seed: int) -> Exhibit:
    """Equally many lists on both sides, or a reward that ignores format."""
    return planted_reward(seed) if subject == "reward" else worded(seed, LIST, usual=0.3, at="end")


PROBE = Probe(
    looks={"pairs": pairs, "reward": reward, "policy": policy},
    options=Options,
    planted=planted,
    clean=clean,
    effect={
        "pairs": "bullets in 60 % of 200 chosen answers, and 20 % of rejected",
        "reward": "2 added to the reward for bold, as much as for two good words",
        "policy": "bullets in 60 % of 200 new answers, and 20 % of old",
    },
    about="the same content as prose, bullets, headings or bold",
)
