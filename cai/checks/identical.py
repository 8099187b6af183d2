"""Do the two answers of a pair differ, and do they still differ for a trainer that cuts them?

Left out on purpose: the chat template, which takes some of the room; `cai export --check` renders it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Annotated

from pydantic import Field
from rapidfuzz.distance import Indel

from cai.checks.run.finding import CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.core.config import Knobs, Share
from cai.core.errors import Mistake
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.stats import share

LONGEST = 20_000
"""Words of an answer that are compared."""
START = 5
"""Words that answers have to share before their start counts as shared."""
Tokenize = Callable[[str], Sequence[object]]


class Options(Knobs):
    max_length: Annotated[int, Field(ge=8)] = 1024
    """What a trainer keeps of prompt and answer: words, or tokens where there is a tokenizer."""
    tokenizer: str = ""
    """A model folder or hub id whose tokenizer counts."""
    near: Annotated[float, Field(gt=0, le=1)] = 0.97
    """Similarity in words from which the two answers of a pair are nearly identical."""
    identical: Share = 0
    near_identical: Share = 0.02
    identical_when_cut: Share = 0
    shared_start: Share = 0.5


KINDS = {
    "identical": Kind("error", "both answers are the same, so there is nothing to prefer: drop these pairs"),
    "near_identical": Kind(
        "warning",
        "both answers are nearly the same, so the loss moves on noise: drop them unless the edit is the point",
    ),
    "identical_when_cut": Kind(
        "error", "both answers are the same once cut at max_length: raise max_length or drop these pairs"
    ),
    "shared_start": Kind(
        "warning",
        "both answers begin alike for half of the shorter one, and only what follows is learned: sample them apart",
        tendency=True,
    ),
}


class IdenticalAnswers:
    """Pairs whose answers are the same, nearly, once cut, or for their first half."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("identical", KINDS, options)
        self._options, self._tokenize, self._rows = options, _tokenizer(options.tokenizer), 0
        self._tallies = {
            name: RowTally() for name in ("identical", "near_identical", "identical_when_cut", "shared_start")
        }

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        self._rows += 1
        chosen, rejected = look.pair.chosen.split(), look.pair.rejected.split()
        if chosen == rejected:
            return self._tallies["identical"].add(look.pair.id)
        found = {
            "near_identical": near(chosen, rejected, self._options.near),
            "identical_when_cut": self._identical_when_cut(look),
            "shared_start": _starts_alike(chosen, rejected),
        }
        for name in filter(found.get, found):
            self._tallies[name].add(look.pair.id)

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not."""
        for name, tally in self._tallies.items():
            value = share(tally.rows, self._rows)
            yield self._report(name, value, rows=tally.rows, examples=tuple(tally.examples))

    def _identical_when_cut(self, look: PairFingerprint) -> bool:
        pair, most = look.pair, self._options.max_length
        texts = [*(message.content for message in pair.prompt), max(pair.chosen, pair.rejected, key=len)]
        if sum(len(text.encode()) for text in texts) <= most:  # no word or token is shorter than a byte
            return False
        room = max(0, most - sum(len(self._tokenize(text)) for text in texts[:-1]))
        chosen, rejected = self._tokenize(pair.chosen), self._tokenize(pair.rejected)
        return max(len(chosen), len(rejected)) > room and chosen[:room] == rejected[:room]


def _tokenizer(name: str) -> Tokenize:
    """What counts length: white space, or the tokenizer of that name. Raises Mistake."""
    if not name:
        return str.split
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise Mistake(name, f"has no tokenizer that can be opened: {what}", "name a model folder or hub id") from error
    return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])


def near(one: Sequence[str], other: Sequence[str], likeness: float) -> bool:
    """Whether two lists of words are alike (Indel similarity, 0 to 1)."""
    one, other = one[:LONGEST], other[:LONGEST]
    short, long = sorted((len(one), len(other)))
    if 2 * short < likeness * (short + long):  # the most that similarity can be at these lengths
        return False
    return Indel.normalized_similarity(one, other, score_cutoff=likeness) >= likeness


def _starts_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    alike = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))
    return alike >= START and 2 * alike >= min(len(one), len(other))


CHECK = Check(
    open=IdenticalAnswers,
    kinds=KINDS,
    options=Options,
    about="answers that are the same, nearly, or once cut",
    order=20,
)
