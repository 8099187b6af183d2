"""Did a row come before, word for word, nearly, or the other way round; and is a held-out prompt in another split too?

Of each row are held its identities and, of texts that did not come before, a MinHash signature: some 700 bytes.

Left out on purpose: which prompts are the same question in other words.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cai.checks.run.finding import EXAMPLES, CheckFindings, RowTally
from cai.checks.run.fingerprints import PairFingerprint
from cai.checks.run.minhash import Signatures, nearest
from cai.core.config import Knobs, Share
from cai.core.phrases import words
from cai.core.plugin_types import Check, Finding, Kind
from cai.core.stats import share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Options(Knobs):
    alike: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    """Jaccard similarity of words and word pairs from which two rows, or two prompts, are near-duplicates."""
    duplicates: Share = 0.01
    near_duplicates: Share = 0.02
    contradictions: Share = 0
    leakage: Share = 0
    near_leakage: Share = 0.01


KINDS = {
    "duplicates": Kind("warning", "rows that came before word for word, and count twice: drop them"),
    "near_duplicates": Kind(
        "warning",
        "rows that nearly came before, prompt and answers: drop copies; a template counts as often as it is used",
    ),
    "contradictions": Kind(
        "error", "the same two answers to the same prompt, preferred the other way round: settle them or drop both"
    ),
    "leakage": Kind("error", "held-out rows whose prompt is in another split too: split by prompt"),
    "near_leakage": Kind(
        "warning", "held-out rows whose prompt is nearly one of another split: split by groups of near-duplicates"
    ),
}


class DuplicateCheck:
    """Rows that came before, and prompts that are in two splits."""

    def __init__(self, options: Options) -> None:
        self._report = CheckFindings("duplicates", KINDS, options)
        self._options = options
        self._seen = set[int]()
        self._again, self._turned = RowTally(), RowTally()
        self._ids, self._split_of, self._prompt_of = list[str](), array("I"), array("I")
        self._prompts, self._splits = dict[int, int](), dict[str, int]()
        self._asked, self._answers, self._answered = Signatures(), Signatures(), array("I")

    def add(self, look: PairFingerprint) -> None:
        """Look at one pair."""
        prompt = self._prompts.setdefault(look.prompt, len(self._prompts))
        if prompt == len(self._asked):
            self._asked.add([word for message in look.pair.prompt for word in words(message.content)])
        if look.row in self._seen:
            self._again.add(look.pair.id)
        else:
            self._answered.append(len(self._ids))
            self._answers.add([*words(look.pair.chosen), *words(look.pair.rejected)])
        if look.turned in self._seen and look.chosen != look.rejected and not look.pair.tie:
            self._turned.add(look.pair.id)
        self._seen.add(look.row)
        self._ids.append(look.pair.id)
        self._prompt_of.append(prompt)
        self._split_of.append(self._splits.setdefault(look.pair.split, len(self._splits)))

    def findings(self) -> Iterator[Finding]:
        """What was found, whether it passes or not; leakage only where there are several splits."""
        asked = self._asked.array()
        rows = len(self._ids)
        for name, tally in (("duplicates", self._again), ("contradictions", self._turned)):
            value = share(tally.rows, rows)
            yield self._report(name, value, rows=tally.rows, examples=tuple(tally.examples))
        yield self._found("near_duplicates", dict(self._near_rows(asked)), rows)
        if len(self._splits) > 1:
            yield from self._leaks(asked)

    def _found(self, name: str, pairs: dict[int, int], n: int) -> Finding:
        """A finding of rows, each with the row that it repeats."""
        shown = list(pairs.items())[:EXAMPLES]
        return self._report(
            name,
            share(len(pairs), n),
            rows=len(pairs),
            examples=tuple(self._ids[row] for row, _ in shown),
            saw=tuple(f"{self._ids[row]} as {self._ids[before]}" for row, before in shown),
        )

    def _near_rows(self, asked_NP: NDArray[np.uint16]) -> Iterator[tuple[int, int]]:
        """Rows whose answers and prompt are nearly those of an earlier row."""
        for place, earlier in enumerate(nearest(self._answers.array(), self._options.alike)):
            if earlier >= 0:
                row, before = self._answered[place], self._answered[earlier]
                one, other = asked_NP[self._prompt_of[row]], asked_NP[self._prompt_of[before]]
                if (one == other).mean() >= self._options.alike:
                    yield row, before

    def _leaks(self, asked_NP: NDArray[np.uint16]) -> Iterator[Finding]:
        """Held-out rows, those of every split but the main one, whose prompt is in another split."""
        main = self._main()
        held_out = [row for row, split in enumerate(self._split_of) if split != main]
        homes = self._homes()
        exact, near = dict[int, int](), dict[int, int]()
        like = self._like(asked_NP, homes, main)
        for row in held_out:
            prompt, split = self._prompt_of[row], self._split_of[row]
            others = [first for home, first in homes[prompt].items() if home != split]
            if others:
                exact[row] = others[0]
            elif prompt in like:
                near[row] = like[prompt]
        yield self._found("leakage", exact, len(held_out))
        yield self._found("near_leakage", near, len(held_out))

    def _main(self) -> int:
        if "train" in self._splits:
            return self._splits["train"]
        return Counter(self._split_of).most_common(1)[0][0]

    def _homes(self) -> list[dict[int, int]]:
        """For each prompt the splits that have it, and the first row of it in each."""
        homes: list[dict[int, int]] = [{} for _ in self._prompts]
        for row, (prompt, split) in enumerate(zip(self._prompt_of, self._split_of, strict=True)):
            homes[prompt].setdefault(split, row)
        return homes

    def _like(self, asked_NP: NDArray[np.uint16], homes: list[dict[int, int]], main: int) -> dict[int, int]:
        """For each prompt of a held-out split a row of another split that asks nearly the same."""
        import numpy as np

        like: dict[int, int] = {}
        for split in sorted(set(self._splits.values()) - {main}):
            here = [prompt for prompt, home in enumerate(homes) if home.keys() == {split}]
            elsewhere = [prompt for prompt, home in enumerate(homes) if split not in home]
            order = np.array([*elsewhere, *here], dtype=np.int64)  # an earlier one is then one of another split, if any
            for prompt, found in zip(
                here, nearest(asked_NP[order], self._options.alike)[len(elsewhere) :], strict=True
            ):
                if 0 <= found < len(elsewhere):
                    like[prompt] = next(iter(homes[order[found]].values()))
        return like


CHECK = Check(open=DuplicateCheck, kinds=KINDS, options=Options, about="rows and prompts that came before", order=80)
