"""Bullets, headings and bold: which side has them, and what the same content earns in another form.

Left out on purpose: whether a form suits the question. A set may well prefer lists where lists were asked for; what is
reported is that form alone would tell the sides apart.
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
    """Share of answers with bullets (headings, bold) on one side, above or below the other side's."""
    moved: float = 0.25
    """What another form may add to a reward, in its spread."""


SIGNS = {
    "bullets": re.compile(r"^\s{0,8}(?:[-*•+]|\d{1,2}[.)])\s+\S", re.MULTILINE),
    "headings": re.compile(r"^\s{0,3}#{1,6}\s+\S", re.MULTILINE),
    "bold": re.compile(r"\*\*\S[^*\n]*\*\*|__\S[^_\n]*__"),
}


def pairs(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """For each sign, share among chosen minus share among rejected."""
    yield from _between(exhibit, options, ("chosen", "rejected"))


def policy(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """For each sign, share of the new policy's answers minus share of the old one's."""
    yield from _between(exhibit, options, ("new", "old"))


def reward(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """What the same sentences earn as bullets, under headings, in bold, and plain."""
    yield from edit_findings("format", exhibit, options.moved, ("bullets", "headings", "bold", "plain"))


def _between(exhibit: Exhibit, options: Options, names: tuple[str, str]) -> Iterator[Finding]:
    for what, sign in SIGNS.items():
        rows, note = minus(exhibit, lambda case, text, sign=sign: float(bool(sign.search(text))), names)  # type: ignore[misc]  # a default binds it
        limit = around(0.0, options.threshold)
        yield measured_finding(
            "format", f"{what}, {names[0]} minus {names[1]}", rows, limit, looks=len(SIGNS), note=note
        )


LIST = "\n- one\n- two"


def planted(subject: Subject, seed: int) -> Exhibit:
    """A list after half of the chosen answers, beside what is usual; or a reward that pays for asterisks."""
    if subject == "reward":
        return planted_reward(seed, lambda asked, answer: 2.0 * ("**" in answer))
    return worded(seed, LIST, usual=0.2, more=0.5, at="end")


def clean(subject: Subject, seed: int) -> Exhibit:
    """As many lists on either side, or a reward that reads through the form."""
    return planted_reward(seed) if subject == "reward" else worded(seed, LIST, usual=0.3, at="end")


PROBE = Probe(
    looks={"pairs": pairs, "reward": reward, "policy": policy},
    options=Options,
    planted=planted,
    clean=clean,
    effect={
        "pairs": "bullets in 60 % of 200 chosen answers, and 20 % of rejected",
        "reward": "2 of reward for bold, as much as for two good words",
        "policy": "bullets in 60 % of 200 new answers, and 20 % of old",
    },
    about="the same content as prose, bullets, headings or bold",
)
