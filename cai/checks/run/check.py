"""What is wrong with a set of preference pairs, in any format, ours or another's, before somebody trains on it.

One pass over the files; of a row are held identities and signatures, and of a sample of rows some words.

Left out on purpose: mending, and judging quality. A clean set of wrong preferences is clean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cai.checks.duplicates import Copies
from cai.checks.identical import Sameness, Tokenize
from cai.checks.languages import Languages
from cai.checks.length import Length
from cai.checks.refusals import Refusals
from cai.checks.run.finding import KINDS, Check, Finding
from cai.checks.run.fingerprints import fingerprinted
from cai.checks.run.options import Options
from cai.checks.schema import Schema
from cai.checks.scores import Scores
from cai.checks.thinking import Thinking
from cai.checks.wording import Wording
from cai.core.errors import Mistake
from cai.core.types import Failure
from cai.data.pairs import data_files, open_pairs, split_names


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file that was read: rows = pairs + bad."""

    path: str
    format: str
    rows: int
    pairs: int
    bad: int


@dataclass(frozen=True, slots=True)
class Hygiene:
    """What was read, and everything that was looked for."""

    files: tuple[Sheet, ...]
    pairs: int
    ties: int
    """Pairs of which neither answer is the better one; they count for nothing that compares the sides."""
    splits: Mapping[str, int]
    findings: tuple[Finding, ...]
    passed: bool


def check_pairs(paths: Sequence[Path], options: Options | None = None) -> Hygiene:
    """Read every file (or those of a folder) and look for everything in KINDS. Raises Mistake for what cannot be read.

    Several files are taken for splits of one set, unless their rows name splits themselves.
    """
    chosen = options or Options()
    inspection = _Inspection(chosen)
    files = _files(paths)
    sheets = tuple(inspection.read(file, split) for file, split in zip(files, split_names(files), strict=True))
    return inspection.result(sheets)


class _Inspection:
    """One pass over all files, with every check looking on."""

    def __init__(self, options: Options) -> None:
        self._options, self._schema = options, Schema(options)
        self._checks: tuple[Check, ...] = (
            Sameness(options, _tokenizer(options.tokenizer)),
            Length(options),
            Refusals(options),
            Wording(options),
            Thinking(options),
            Languages(options),
            Copies(options),
            Scores(options),
        )
        self._splits, self._ties = Counter[str](), 0

    def read(self, path: Path, split: str) -> Sheet:
        """Look at every row of a file, a `split` where its rows do not say."""
        file, counts = open_pairs(path, self._options.format, split), Counter[str]()
        self._schema.open(str(path))
        for pair in file.pairs:
            counts["bad" if isinstance(pair, Failure) else "pairs"] += 1
            if isinstance(pair, Failure):
                self._schema.refuse(pair)
                continue
            self._schema.add(pair, str(path))
            self._splits[pair.split] += 1
            self._ties += pair.tie
            seen = fingerprinted(pair)
            for one in self._checks:
                one.add(seen)
        return Sheet(str(path), file.format, counts.total(), counts["pairs"], counts["bad"])

    def result(self, sheets: tuple[Sheet, ...]) -> Hygiene:
        """Everything that was found, in the order of KINDS."""
        order = list(KINDS)
        found = sorted(self._findings(), key=lambda finding: order.index(finding.name))
        passed = all(finding.passed for finding in found)
        return Hygiene(sheets, self._splits.total(), self._ties, dict(self._splits), tuple(found), passed)

    def _findings(self) -> Iterator[Finding]:
        yield from self._schema.findings()
        for one in self._checks:
            yield from one.findings()


def _files(paths: Sequence[Path]) -> list[Path]:
    """Every file once, in the order given. Raises Mistake."""
    return list(dict.fromkeys(file for path in paths for file in data_files(path)))


def _tokenizer(name: str) -> Tokenize:
    """What counts length: white space, or the tokenizer of that name. Raises Mistake."""
    if not name:
        return str.split
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise Mistake(name, f"has no tokenizer that can be opened: {what}", "name a model folder or hub id") from error
    return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])
