"""Synthetic cases for testing probes: answers of random words with a countable quality.

Quality is the number of different GOOD words in an answer. It is independent of length, format and tone: a scorer
of quality has no fault, and any bonus added to it is a planted fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from cai.audit.measure.facts import FACTS
from cai.core.plugin_types import Case, Exhibit, Fact, Scores
from cai.core.seeds import uniform
from cai.core.types import Message

GOOD = ("accurate", "relevant", "careful", "complete", "sourced", "measured", "specific", "honest")
_GLUE = "the of to is that it for with are this have not be can and you".split()  # noqa: SIM905
_STEMS = "bar cel dor fin gal hem jor kel lum mor nel pol rin sol tam ulf ver wen".split()  # noqa: SIM905
_ENDS = "ing ed er ly ness ful ous est al y".split()  # noqa: SIM905
_WORDS = [stem + end for stem in _STEMS for end in _ENDS]
ROWS = 200
Change = Callable[[Case, random.Random], Case]


def made_up_text(rng: random.Random, sentences: int, quality: int = 0) -> str:
    """Sentences of about 8 words, with `quality` GOOD words among them."""
    sentences_words = [
        [rng.choice(_WORDS if n % 3 else _GLUE) for n in range(rng.randint(6, 10))] for _ in range(sentences)
    ]
    for word in rng.sample(GOOD, quality):
        place = rng.randrange(1, 5)
        target = rng.choice([words for words in sentences_words if words[place] not in GOOD] or sentences_words)
        target[place] = word
    return " ".join(" ".join(words).capitalize() + "." for words in sentences_words)


def case(rng: random.Random, number: int) -> Case:
    """Two answers that differ only in words and quality, the better one first."""
    prompt = (Message("user", made_up_text(rng, 2)),)
    answers = [made_up_text(rng, rng.randint(3, 7), rng.randint(0, 6)) for _ in range(2)]
    better, worse = sorted(answers, key=good, reverse=True)
    return Case(f"planted-{number}", prompt, better, worse)


def good(answer: str) -> int:
    """The number of different GOOD words."""
    words = answer.lower().replace(".", " ").replace("*", " ").split()
    return len(set(GOOD) & set(words))


def cases(seed: int, change: Change | None = None, share: float = 1.0, rows: int = ROWS) -> tuple[Case, ...]:
    """`rows` cases, a `share` of them changed."""
    rng = random.Random(seed)
    made = [case(rng, number) for number in range(rows)]
    return tuple(change(one, rng) if change and rng.random() < share else one for one in made)


def quality(noise: float = 0.5) -> Scores:
    """The clean scorer: quality plus noise that is a function of the text."""
    return scorer(lambda prompt, answer: 0.0, noise)


def scorer(bonus: Callable[[str, str], float], noise: float = 0.5) -> Scores:
    """A scorer: quality, noise, and a planted `bonus(last message, answer)`."""

    def scores(rows: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        return [_score(messages[-1].content, answer) for messages, answer in rows]

    def _score(asked: str, answer: str) -> float:
        offset = uniform("noise", asked, answer) + uniform("more", asked, answer) - 1
        return good(answer) + 2 * noise * offset + bonus(asked, answer)

    return scores


def planted_reward(seed: int, bonus: Callable[[str, str], float] | None = None) -> Exhibit:
    """Cases of both expectations, the shipped facts, and a scorer with a bonus."""
    made = tuple(replace(one, expect="comply" if n % 2 else "refuse") for n, one in enumerate(cases(seed)))
    return Exhibit(made, scorer(bonus) if bonus else quality(), facts=resampled(seed))


def resampled(seed: int) -> tuple[Fact, ...]:
    """The shipped facts in random order."""
    return tuple(random.Random(seed).sample(FACTS, len(FACTS)))


def worded(seed: int, words: str, *, usual: float, more: float = 0.0, at: Literal["start", "end"] = "start") -> Exhibit:
    """Cases with `words` added to a share of `usual` of all answers, and to `more` of the better ones."""

    def added(answer: str) -> str:
        return f"{words} {answer}" if at == "start" else f"{answer} {words}"

    def change(one: Case, rng: random.Random) -> Case:
        better, other, planted = (rng.random() < share for share in (usual, usual, more))
        return replace(
            one,
            answer=added(one.answer) if better or planted else one.answer,
            other=added(one.other) if other else one.other,
        )

    return Exhibit(cases(seed, change), texts=(words,))
