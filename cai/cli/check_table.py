"""A check as lines for a terminal: what was read, a table, and for what did not pass what it means and which rows.

Left out on purpose: colour. The first word of a line says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.checks.run.check import Hygiene
from cai.checks.run.finding import Finding
from cai.core.safe_text import safe_text
from cai.data.pair_formats import PAIR_FORMATS

_ACCURACIES = frozenset({"always_longer"})
"""Findings whose value is an accuracy and not a share of rows."""


def check_lines(said: Hygiene) -> list[str]:
    """The whole check, ready to print."""
    return [_shown(line) for line in (*_read(said), "", *_table(said), *_told(said), "", _verdict(said))]


def _read(said: Hygiene) -> Iterator[str]:
    for sheet in said.files:
        about = f"{sheet.format} ({PAIR_FORMATS[sheet.format].about})" if sheet.format else "no format that is known"
        yield f"{sheet.path}: {about}, {sheet.pairs} pairs" + (f", {sheet.bad} bad rows" if sheet.bad else "")
    if said.ties:
        yield f"{said.ties} ties"
    if len(said.splits) > 1:
        yield "splits: " + ", ".join(f"{name} {pairs}" for name, pairs in said.splits.items())


def _table(said: Hygiene) -> Iterator[str]:
    rows = [("", "finding", "value", "95 % interval", "passes", "rows"), *map(_row, said.findings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(finding: Finding) -> tuple[str, str, str, str, str, str]:
    value = finding.value
    between = (
        ""
        if value.low is None or not finding.rows
        else f"[{_number(finding, value.low)}, {_number(finding, value.high)}]"
    )
    rows = f"{finding.rows}" if finding.rows else ""
    return _mark(finding), finding.name, _number(finding, value.value), between, _limit(finding), rows


def _mark(finding: Finding) -> str:
    if finding.passed:
        return "ok"
    return "FAIL" if finding.severity == "error" else "warn"


def _number(finding: Finding, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if finding.name in _ACCURACIES else f"{100 * value:.1f} %"


def _limit(finding: Finding) -> str:
    if finding.neutral is None:
        return f"to {_number(finding, finding.threshold)}"
    low, high = finding.neutral - finding.threshold, finding.neutral + finding.threshold
    return f"{_number(finding, low)} to {_number(finding, high)}"


def _told(said: Hygiene) -> Iterator[str]:
    for finding in said.findings:
        if finding.passed:
            continue
        yield ""
        yield f"{finding.name}: {finding.meaning}"
        yield from (f"  {seen}" for seen in finding.saw)
        if finding.examples:
            yield f"  such as {', '.join(finding.examples)}"


def _verdict(said: Hygiene) -> str:
    missed = [finding.name for finding in said.findings if not finding.passed]
    return f"past a threshold: {', '.join(missed)}" if missed else "nothing past a threshold"


def _shown(line: str) -> str:
    return safe_text(line).replace("\n", " ")
