"""Preference pairs with and without faults, for tests: a clean set, and each fault that a check has to find in it.

Left out on purpose: faults of files and of scores, which are planted where they are tested.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foreign_pairs import Plain

from cai.checks.run.check import CheckResult, check_pairs
from cai.checks.run.options import check_options

ROWS = 60


def checked(*paths: Path, **set: object) -> CheckResult:
    return check_pairs(paths, check_options([f"{name}={value}" for name, value in set.items()]))


def missed(said: CheckResult) -> set[str]:
    """Findings that did not pass."""
    return {finding.what for finding in said.findings if not finding.passed}


def of(said: CheckResult, name: str) -> Any:
    (found,) = (finding for finding in said.findings if finding.what == name)
    return found


_GLUE = "the of to is that it for with are this have not be can and you".split()  # noqa: SIM905
_STEM = "bar cel dor fin gal hem jor kel lum mor nel pol rin sol tam ulf ver wen".split()  # noqa: SIM905
_END = "ing ed er ly ness ful ous est al y".split()  # noqa: SIM905
_WORDS = [stem + end for stem in _STEM for end in _END]


def clean(count: int, seed: int = 0) -> list[Plain]:
    """Pairs in which nothing tells the sides apart and no two are alike."""
    rng = random.Random(seed)

    def text(least: int, most: int) -> str:
        words = [rng.choice(_GLUE if place % 3 else _WORDS) for place in range(rng.randint(least, most))]
        return " ".join(words).capitalize() + "."

    asked = [text(12, 25) for _ in range(count)]
    return [Plain((("user", question),), text(15, 40), text(15, 40)) for question in asked]


def some(pairs: list[Plain], every: int, change: Callable[[Plain], Plain]) -> list[Plain]:
    """The pairs with a change in every so many of them."""
    return [change(pair) if number % every == 0 else pair for number, pair in enumerate(pairs)]


def each_after(pairs: list[Plain], every: int, again: Callable[[Plain], Plain]) -> list[Plain]:
    """The pairs, and after every so many of them another row made from it."""
    return [
        row for number, pair in enumerate(pairs) for row in ([pair, again(pair)] if number % every == 0 else [pair])
    ]


LONG = "and it was said that " * 30
FRENCH = (
    "Il est vrai que les mots dans une langue ne sont pas les mots du pays, mais il faut pour cela que vous le disiez"
)
ENGLISH = "It is true that the words of a language are not the words of the country, and for that you have to say it"
FAULTS: dict[str, tuple[Callable[[list[Plain]], list[Plain]], set[str]]] = {
    "empty": (lambda pairs: some(pairs, 30, lambda pair: pair.but(rejected=" \n")), set()),
    "identical": (lambda pairs: some(pairs, 30, lambda pair: pair.but(rejected=pair.chosen)), set()),
    "near_identical": (
        lambda pairs: some(pairs, 20, lambda pair: pair.but(chosen=LONG + "well", rejected=LONG + "never")),
        {"openings", "shared_start"},
    ),
    "identical_when_cut": (
        lambda pairs: some(pairs, 30, lambda pair: pair.but(chosen=LONG * 9 + pair.chosen, rejected=LONG * 9 + pair.rejected)),
        {"near_identical", "near_duplicates"},
    ),
    "shared_start": (
        lambda pairs: some(pairs, 1, lambda pair: pair.but(rejected=" ".join(pair.chosen.split()[:12]) + " or not")),
        {"always_longer"},
    ),
    "always_longer": (lambda pairs: some(pairs, 1, lambda pair: by_length(pair, longer=True)), set()),
    "always_shorter": (lambda pairs: some(pairs, 1, lambda pair: by_length(pair, longer=False)), set()),
    "length_ratio": (
        lambda pairs: some(some(pairs, 3, lambda pair: pair.but(chosen=pair.chosen * 9)), 2, lambda pair: pair.but(rejected=pair.rejected * 9)),
        set(),
    ),
    "length_skew": (
        lambda pairs: some(pairs, 5, lambda pair: pair.but(chosen=f"{pair.chosen} " * 9)),
        {"always_longer"},
    ),
    "refusals": (
        lambda pairs: some(pairs, 3, lambda pair: pair.but(rejected="I'm sorry, but I cannot help with that. " + pair.rejected)),
        {"openings", "boilerplate", "always_longer"},
    ),
    "openings": (
        lambda pairs: some(pairs, 2, lambda pair: Plain(pair.asked, "Of course, friend! " + pair.chosen, "Of course, friend! " + pair.rejected)),
        set(),
    ),
    "boilerplate": (
        lambda pairs: some(pairs, 3, lambda pair: pair.but(chosen=pair.chosen + " I am here to listen.", rejected=pair.rejected + " So much for that one.")),
        set(),
    ),
    "think_blocks": (
        lambda pairs: some(pairs, 10, lambda pair: pair.but(chosen="<think>\n\n</think>\n\n" + pair.chosen)),
        set(),
    ),
    "turn_tokens": (lambda pairs: some(pairs, 10, lambda pair: pair.but(chosen=pair.chosen + "<|im_end|>")), set()),
    "language": (lambda pairs: some(pairs, 20, lambda pair: pair.but(chosen=FRENCH, rejected=ENGLISH)), {"near_duplicates", "duplicates"}),
    "duplicates": (lambda pairs: each_after(pairs, 20, lambda pair: pair), set()),
    "near_duplicates": (lambda pairs: each_after(pairs, 20, lambda pair: pair.but(chosen=pair.chosen + " Indeed.")), set()),
    "contradictions": (
        lambda pairs: each_after(pairs, 30, lambda pair: Plain(pair.asked, pair.rejected, pair.chosen)),
        {"near_duplicates"},
    ),
}  # fmt: skip
"""Fault -> how it is planted, and what else may be said of it."""
NAMED = {"always_shorter": "always_longer"}


def by_length(pair: Plain, *, longer: bool) -> Plain:
    short, long = sorted((pair.chosen, pair.rejected), key=len)
    return Plain(pair.asked, long, short) if longer else Plain(pair.asked, short, long)
