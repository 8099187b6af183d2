"""What audits and checks found, as findings.json of a run holds it: this module reads and writes that file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cai.core.plugin_types import Finding
from cai.runs.files import read_record, record_as_json, write_json

FILE = "findings.json"


@dataclass(frozen=True, slots=True)
class Audit:
    """What was looked at and what was found."""

    of: str
    """`pairs`, `reward` and a model's name, `policy` and two names, ..."""
    rows: int
    findings: tuple[Finding, ...]
    left_out: int = 0
    """Rows that could not be read, or not be scored whole."""

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Findings past their threshold."""
        return tuple(found for found in self.findings if found.passed is False)

    def as_json(self) -> dict[str, object]:
        """As findings.json holds it."""
        return record_as_json(self) | {"failed": len(self.failed)}


@dataclass(frozen=True, slots=True)
class _File:
    audits: tuple[Audit, ...] = ()


def read_findings(folder: Path) -> tuple[Audit, ...]:
    """The audits of a run, none where nothing was audited. Raises Mistake."""
    if not (folder / FILE).is_file():
        return ()
    return read_record(folder / FILE, _File, "audit the run again: `cai audit run`").audits


def write_findings(folder: Path, audits: Iterable[Audit]) -> None:
    """Keep what was found; findings about the same thing, from an earlier audit, are replaced. Raises Mistake."""
    listed = list(audits)
    new = {audit.of for audit in listed}
    kept = [audit for audit in read_findings(folder) if audit.of not in new]
    write_json(folder / FILE, {"audits": [audit.as_json() for audit in (*kept, *listed)]})
