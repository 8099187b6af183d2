"""Position bias of a judge: what being shown first adds to p, and how often the two orders disagree.

Only pairs that were judged in both orders count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cai.audit.measure.finding import Measured, Tolerance, around, group, measured_finding
from cai.audit.measure.planted import cases
from cai.core.config import Knobs
from cai.core.plugin_types import Case, Exhibit, Finding, Probe, Subject
from cai.core.seeds import uniform


class Options(Knobs):
    """Thresholds."""

    threshold: float = 0.1
    """Change of p by being shown first, in either direction."""
    flips: float = 0.25
    """Share of pairs on which the two orders disagree."""


def judge(exhibit: Exhibit, options: Options) -> Iterator[Finding]:
    """Position bias, and the share of verdicts that flip with the order."""
    both = [
        (case, one, two)
        for case in exhibit.cases
        for one, two in [_orders(case)]
        if one is not None and two is not None
    ]
    bias = [Measured(case.id, group(case.prompt), (one - two) / 2) for case, one, two in both]
    flips = [Measured(case.id, group(case.prompt), float((one - 0.5) * (two - 0.5) < 0)) for case, one, two in both]
    note = "" if both else "no pair was judged in both orders"
    yield measured_finding(
        "position", "added to p by being shown first", bias, around(0, options.threshold), looks=2, note=note
    )
    yield measured_finding(
        "position", "verdicts that flip with the order", flips, Tolerance(options.flips), looks=2, note=note
    )


def _orders(case: Case) -> tuple[float | None, float | None]:
    return (case.orders[0], case.orders[1]) if len(case.orders) == 2 else (None, None)


def _judged(seed: int, bias: float) -> Exhibit:
    def p(case: Case) -> tuple[float, float]:
        quality = 0.5 + 0.4 * uniform("p", seed, case.id)
        noise = 0.2 * (uniform("luck", seed, case.id) - 0.5)
        return min(1.0, quality + bias + noise), max(0.0, quality - bias - noise)

    return Exhibit(tuple(replace(case, orders=p(case)) for case in cases(seed)))


def planted(subject: Subject, seed: int) -> Exhibit:
    """A judge that adds 0.2 to p of the answer shown first."""
    return _judged(seed, 0.2)


def clean(subject: Subject, seed: int) -> Exhibit:
    """A judge without position bias."""
    return _judged(seed, 0.0)


PROBE = Probe(
    looks={"judge": judge},
    options=Options,
    planted=planted,
    clean=clean,
    effect={"judge": "0.2 added to p by being shown first, over 200 pairs"},
    about="position bias of a judge",
)
