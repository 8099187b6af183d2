"""Phrases that one side uses more are found without a list, and chance is not taken for one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_pairs import clean

from cai.core.phrases import WindowSample, answer_windows, find_phrases, words
from cai.core.stats import difference, interval, share


def couples(seed: int = 0, count: int = 200, *, with_it: float = 0.0, end: bool = False) -> list:
    rng = random.Random(seed)
    made = []
    for number, pair in enumerate(clean(count, seed)):
        said = "I'm here to listen, always." if rng.random() < with_it else ""
        after = f"{pair.chosen} {said}" if end else f"{said} {pair.chosen}"
        made.append(answer_windows(f"p{number}", number, pair.rejected, after))
    return made


@pytest.mark.parametrize("end", [False, True])
def test_a_phrase_is_found_at_either_end_with_its_shares_and_support(end: bool) -> None:
    (found,) = find_phrases(couples(with_it=0.4, end=end))
    assert found.text == "i'm here to listen always"
    assert found.before == 0
    assert 0.3 < found.after < 0.5
    assert found.lift.value == found.after
    assert found.lift.low is not None
    assert 0.25 < found.lift.low < found.after
    assert found.prompts == round(200 * found.after)
    assert found.p < 1e-6


def test_a_phrase_that_went_is_found_too() -> None:
    (found,) = find_phrases(
        [made.__class__(made.id, made.prompt, made.after, made.before) for made in couples(with_it=0.4)]
    )
    assert found.lift.value == -found.before < 0


def test_a_phrase_of_one_prompt_is_no_phrase_of_the_set() -> None:
    same = [made.__class__(made.id, 0, made.before, made.after) for made in couples(with_it=1.0)]
    assert find_phrases(same) == []


def test_chance_is_not_taken_for_a_phrase() -> None:
    assert [seed for seed in range(40) if find_phrases(couples(seed, 100))] == []


def test_a_longer_answer_has_no_more_of_everything() -> None:
    made = [
        answer_windows(str(number), number, pair.rejected, f"{pair.chosen} {pair.chosen}")
        for number, pair in enumerate(clean(300))
    ]
    assert find_phrases(made) == []


def test_phrases_that_overlap_are_named_once() -> None:
    text = "one two three four five six seven eight nine ten"
    made = [answer_windows(str(number), number, "a b c d e f g h i j k", text) for number in range(20)]
    found = [phrase.text for phrase in find_phrases(made)]
    assert len(found) == len(set(found))
    trigrams = [" ".join(phrase.split()[at : at + 3]) for phrase in found for at in range(len(phrase.split()) - 2)]
    assert len(trigrams) == len(set(trigrams))


def test_words_of_a_script_without_blanks_are_its_characters() -> None:
    assert words("Don’t STOP, 漢字かな abc漢!") == ["don't", "stop", "漢", "字", "か", "な", "abc", "漢"]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 20), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_sample_does_not_depend_on_the_order_of_rows(keys: list[int], size: int, rng: random.Random) -> None:
    def drawn(ordered: list[int]) -> list[int]:
        sample = WindowSample(size)
        for key in ordered:
            if sample.wants(key):
                sample.add(key, answer_windows(str(key), key, "a", "b"))
        return [made.prompt for made in sample]

    there = drawn(keys)
    assert there == sorted(keys)[:size]
    rng.shuffle(keys)
    assert drawn(keys) == there


@given(st.integers(2, 400), st.data())
@settings(max_examples=30, deadline=None)
def test_the_interval_of_a_share_is_the_bootstrap_of_its_rows(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    quick, slow = share(hits, n), interval([1.0] * hits + [0.0] * (n - hits))
    assert quick.value == pytest.approx(slow.value)
    assert (quick.low, quick.high) == (
        pytest.approx(slow.low, abs=2.5 / n + 0.02),
        pytest.approx(slow.high, abs=2.5 / n + 0.02),
    )


def test_a_difference_is_paired_and_nothing_is_known_of_nothing() -> None:
    more, less = difference(30, 10, 100), difference(10, 30, 100)
    assert (more.value, less.value) == (0.2, -0.2)
    assert more.low is not None
    assert more.low > 0
    assert (share(0, 0).value, share(1, 1).low) == (None, None)
