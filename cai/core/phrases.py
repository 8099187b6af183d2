"""Phrases that one side of many answer pairs uses more than the other, found without a list of phrases.

Document frequency of every n-gram on one side against the other. A phrase needs support from several prompts, and each
prompt has one vote in a sign test, corrected (Bonferroni) for the number of n-grams tested. Both sides of a pair are
cut to the same number of words, half from their start and half from their end; otherwise the longer side would have
more of every phrase.

Left out on purpose: the middle of long answers, where phrases depend on the subject, and what the phrases mean.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop
from itertools import groupby
from sys import intern

from cai.core.stats import Interval, difference

WINDOW = 120
"""Words of an answer that are examined, at most."""
SIZES = range(3, 7)
"""Number of words of a phrase."""
SUPPORT = 5
"""Prompts in which a phrase must occur on one side more than on the other."""
LEVEL = 0.05
"""Probability of reporting any phrase where there is no difference."""
Gram = tuple[str, ...]

# in a script written without spaces each character is a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that are more frequent on one side than on the other, and their share of the answers of each."""

    text: str
    before: float
    after: float
    lift: Interval
    """Share of answers after, minus share before, paired."""
    prompts: int
    """Prompts that differ in it."""
    p: float
    """p-value of the sign test over these prompts, corrected."""

    def distinguishes(self, pair: AnswerWindows) -> bool:
        """Whether it occurs on one side of a pair and not on the other."""
        gram = tuple(self.text.split(" "))
        return _occurs_in(gram, pair.before) != _occurs_in(gram, pair.after)


@dataclass(frozen=True, slots=True)
class AnswerWindows:
    """Two answers to one prompt, cut to the words that are examined: those of the start, and those of the end."""

    id: str
    prompt: int
    """The same for equal prompts."""
    before: tuple[tuple[str, ...], ...]
    after: tuple[tuple[str, ...], ...]


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("’", "'"))


def answer_windows(id: str, prompt: int, before: str, after: str) -> AnswerWindows:
    """Equal windows of two answers."""
    one, other = words(before), words(after)
    length = min(len(one), len(other), WINDOW)
    head, tail = length - length // 2, length // 2

    def window(listed: list[str]) -> tuple[tuple[str, ...], ...]:
        start, end = listed[:head], listed[len(listed) - tail :]
        return tuple(map(intern, start)), tuple(map(intern, end))  # most words are shared by many windows

    return AnswerWindows(id, prompt, window(one), window(other))


class WindowSample:
    """The pairs with the smallest keys: a random sample that does not depend on the order of rows."""

    def __init__(self, size: int) -> None:
        self._size, self._seen = size, 0
        self._heap: list[tuple[int, int, AnswerWindows]] = []

    def wants(self, key: int) -> bool:
        """Whether a row with this key would be added; saves cutting those that would not."""
        return len(self._heap) < self._size or -key > self._heap[0][0]

    def add(self, key: int, pair: AnswerWindows) -> None:
        self._seen += 1
        push = heappush if len(self._heap) < self._size else heappushpop
        push(self._heap, (-key, -self._seen, pair))

    def __iter__(self) -> Iterator[AnswerWindows]:
        return (pair for _, _, pair in sorted(self._heap, key=lambda item: item[:2], reverse=True))


def find_phrases(pairs: Iterable[AnswerWindows], *, most: int = 5) -> list[Phrase]:
    """The phrases that differ most between the sides, beyond chance, in either direction; each in its longest form."""
    listed = sorted(pairs, key=lambda pair: pair.prompt)
    votes = _votes(listed)
    n_tested = len(votes)
    found = {gram: p for gram, p in _p_values(votes).items() if p * n_tested <= LEVEL}
    chosen = _distinct({gram: votes[gram][0] - votes[gram][1] for gram in found}, most)
    return [_phrase(gram, listed, sum(votes[gram]), min(1.0, found[gram] * n_tested)) for gram in chosen]


def _votes(pairs: Sequence[AnswerWindows]) -> dict[Gram, tuple[int, int]]:
    """For each n-gram with support: prompts that have it more after, and prompts that have it more before.

    Grows n-grams word by word: a longer one cannot occur in more prompts than its parts (Agrawal and Srikant, 1994).
    """
    votes: dict[Gram, tuple[int, int]] = {}
    frequent: set[Gram] | None = None
    for size in range(1, SIZES.stop):
        seen, up, down = Counter[Gram](), Counter[Gram](), Counter[Gram]()
        for _, group in groupby(pairs, key=lambda pair: pair.prompt):
            net, any_side = _net(group, size, frequent)
            seen.update(any_side)
            up.update(gram for gram, count in net.items() if count > 0)
            down.update(gram for gram, count in net.items() if count < 0)
        frequent = {gram for gram, prompts in seen.items() if prompts >= SUPPORT}
        if size in SIZES:
            tested = (gram for gram in frequent if up[gram] + down[gram] >= SUPPORT)
            votes.update((gram, (up[gram], down[gram])) for gram in tested)
    return votes


def _net(group: Iterable[AnswerWindows], size: int, parts: set[Gram] | None) -> tuple[Counter[Gram], set[Gram]]:
    """Answers of one prompt that have an n-gram, after minus before; and all n-grams."""
    net, any_side = Counter[Gram](), set[Gram]()
    for pair in group:
        after, before = _grams(pair.after, size, parts), _grams(pair.before, size, parts)
        net.update(after - before)
        net.subtract(before - after)
        any_side |= after | before
    return net, any_side


def _grams(windows: tuple[tuple[str, ...], ...], size: int, parts: set[Gram] | None = None) -> set[Gram]:
    grams = (window[at : at + size] for window in windows for at in range(len(window) - size + 1))
    return {gram for gram in grams if parts is None or (gram[1:] in parts and gram[:-1] in parts)}


def _p_values(votes: Mapping[Gram, tuple[int, int]]) -> dict[Gram, float]:
    """Two-sided sign test of each."""
    if not votes:
        return {}
    import numpy as np
    from scipy.stats import binom

    most_G = np.array([max(vote) for vote in votes.values()])
    total_G = np.array([sum(vote) for vote in votes.values()])
    p_G = np.minimum(1.0, 2 * binom.sf(most_G - 1, total_G, 0.5))
    return dict(zip(votes, map(float, p_G), strict=True))


def _distinct(nets: Mapping[Gram, int], most: int) -> list[Gram]:
    """The strongest n-grams, each in its longest form that is nearly as strong, no two with three words in common."""
    kept, taken = list[Gram](), set[Gram]()
    for gram in sorted(nets, key=lambda gram: (-abs(nets[gram]), -len(gram), gram)):
        if len(kept) == most:
            break
        longer = [other for other in nets if _within(gram, other) and abs(nets[other]) >= 0.8 * abs(nets[gram])]
        best = max(longer, key=lambda other: (len(other), abs(nets[other]), other))
        if not _grams((best,), SIZES.start) & taken:
            kept.append(best)
            taken |= _grams((best,), SIZES.start)
    return kept


def _within(gram: Gram, other: Gram) -> bool:
    return any(other[at : at + len(gram)] == gram for at in range(len(other) - len(gram) + 1))


def _phrase(gram: Gram, pairs: Sequence[AnswerWindows], prompts: int, p: float) -> Phrase:
    has = [(_occurs_in(gram, pair.before), _occurs_in(gram, pair.after)) for pair in pairs]
    n = len(has)
    before, after = sum(one for one, _ in has) / n, sum(other for _, other in has) / n
    lift = difference(has.count((False, True)), has.count((True, False)), n)
    return Phrase(" ".join(gram), before, after, lift, prompts, p)


def _occurs_in(gram: Gram, windows: Iterable[tuple[str, ...]]) -> bool:
    return any(_within(gram, window) for window in windows)
