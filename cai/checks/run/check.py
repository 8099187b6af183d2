"""Runs the checks over a set of preference pairs in any format: one pass, with every check looking on.

Of a row are held identities and signatures, and of a sample of rows some words. A clean set of wrong preferences is
clean: the checks do not judge quality.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cai.checks.run.fingerprints import fingerprinted
from cai.checks.run.options import check_options, open_checks
from cai.core.config import Knobs
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.types import Failure
from cai.data.pairs import data_files, open_pairs, split_names


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One file that was read: rows = pairs + bad."""

    path: str
    format: str
    rows: int
    pairs: int
    bad: int


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was read, and everything that was looked for."""

    files: tuple[CheckedFile, ...]
    pairs: int
    ties: int
    """Pairs of which neither answer is the better one; they count for nothing that compares the sides."""
    splits: Mapping[str, int]
    findings: tuple[Finding, ...]
    passed: bool


def known_kinds(checks: Mapping[str, Check] | None = None) -> dict[str, Kind]:
    """Every kind of finding, in the order in which findings are listed."""
    found = open_checks() if checks is None else checks
    return {name: kind for check in found.values() for name, kind in check.kinds.items()}


def check_pairs(
    paths: Sequence[Path],
    options: Mapping[str, Knobs] | None = None,
    *,
    checks: Mapping[str, Check] | None = None,
) -> CheckResult:
    """Read every file (or those of a folder) and run every check. Raises Mistake for what cannot be read.

    Several files are taken for splits of one set, unless their rows name splits themselves.
    """
    checks = open_checks() if checks is None else checks
    options = check_options(checks=checks) if options is None else options
    inspection = _Inspection(checks, options, str(getattr(options.get("schema"), "format", "")))
    files = list(dict.fromkeys(file for path in paths for file in data_files(path)))
    read = tuple(inspection.read(file, split) for file, split in zip(files, split_names(files), strict=True))
    return inspection.result(read)


class _Inspection:
    """One pass over all files."""

    def __init__(self, checks: Mapping[str, Check], options: Mapping[str, Knobs], format: str) -> None:
        self._order = list(known_kinds(checks))
        self._checkers = [check.open(options[name]) for name, check in checks.items()]
        self._format, self._splits, self._ties = format, Counter[str](), 0

    def read(self, path: Path, split: str) -> CheckedFile:
        """Look at every row of a file, a `split` where its rows do not say."""
        file, counts = open_pairs(path, self._format, split), Counter[str]()
        self._tell("begin", str(path))
        for pair in file.pairs:
            counts["bad" if isinstance(pair, Failure) else "pairs"] += 1
            if isinstance(pair, Failure):
                self._tell("refuse", pair)
                continue
            self._splits[pair.split] += 1
            self._ties += pair.tie
            seen = fingerprinted(pair)
            for checker in self._checkers:
                checker.add(seen)
        return CheckedFile(str(path), file.format, counts.total(), counts["pairs"], counts["bad"])

    def result(self, files: tuple[CheckedFile, ...]) -> CheckResult:
        """Everything that was found, in the order of the kinds."""
        found = tuple(sorted(self._findings(), key=lambda finding: self._order.index(finding.what)))
        passed = all(finding.passed for finding in found)
        return CheckResult(files, self._splits.total(), self._ties, dict(self._splits), found, passed)

    def _findings(self) -> Iterator[Finding]:
        for checker in self._checkers:
            yield from checker.findings()

    def _tell(self, method: str, value: object) -> None:
        """Call a method that a check may have: `begin(path)` for each file, `refuse(failure)` for a bad row."""
        for checker in self._checkers:
            if call := getattr(checker, method, None):
                call(value)
