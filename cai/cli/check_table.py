"""A check as lines for a terminal: what was read, a table, and for what did not pass what it means and which rows.

Left out on purpose: colour. The first word of a line says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from cai.checks.run.check import CheckResult
from cai.core.plugin_types import Finding
from cai.core.safe_text import safe_text
from cai.data.pair_formats import PAIR_FORMATS

_ACCURACIES = frozenset({"always_longer"})
"""Findings whose value is an accuracy and not a share of rows."""


def check_lines(result: CheckResult) -> list[str]:
    """The whole check, ready to print."""
    return [_shown(line) for line in (*_read(result), "", *_table(result), *_details(result), "", _verdict(result))]


def _read(result: CheckResult) -> Iterator[str]:
    for file in result.files:
        about = f"{file.format} ({PAIR_FORMATS[file.format].about})" if file.format else "no format that is known"
        yield f"{file.path}: {about}, {file.pairs} pairs" + (f", {file.bad} bad rows" if file.bad else "")
    if result.ties:
        yield f"{result.ties} ties"
    if len(result.splits) > 1:
        yield "splits: " + ", ".join(f"{name} {pairs}" for name, pairs in result.splits.items())


def _table(result: CheckResult) -> Iterator[str]:
    rows = [("", "finding", "value", "95 % interval", "passes", "rows"), *map(_row, result.findings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(finding: Finding) -> tuple[str, str, str, str, str, str]:
    between = ""
    if finding.low is not None and finding.rows:
        between = f"[{_number(finding, finding.low)}, {_number(finding, finding.high)}]"
    rows = f"{finding.rows}" if finding.rows else ""
    return _mark(finding), finding.what, _number(finding, finding.value), between, _limit(finding), rows


def _mark(finding: Finding) -> str:
    if finding.passed:
        return "ok"
    return "FAIL" if finding.severity == "major" else "warn"


def _number(finding: Finding, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if finding.what in _ACCURACIES else f"{100 * value:.1f} %"


def _limit(finding: Finding) -> str:
    if finding.least is None:
        return f"to {_number(finding, finding.threshold)}"
    return f"{_number(finding, finding.least)} to {_number(finding, finding.threshold)}"


def _details(result: CheckResult) -> Iterator[str]:
    for finding in result.findings:
        if finding.passed:
            continue
        yield ""
        yield f"{finding.what}: {finding.meaning}"
        yield from (f"  {seen}" for seen in finding.saw)
        if finding.examples:
            yield f"  such as {', '.join(finding.examples)}"


def _verdict(result: CheckResult) -> str:
    missed = [finding.what for finding in result.findings if not finding.passed]
    return f"past a threshold: {', '.join(missed)}" if missed else "nothing past a threshold"


def _shown(line: str) -> str:
    return safe_text(line).replace("\n", " ")
