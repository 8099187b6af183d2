"""The word diff: loses nothing, reads well, and stays quick on huge texts."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.core.diff import Segment, word_diff

TEXT = st.text(alphabet=st.sampled_from("ab .\n\t\u00a0é"), max_size=60)


def joined(segments: list[Segment], *kinds: str) -> str:
    return "".join(segment.text for segment in segments if segment.kind in kinds)


@given(TEXT, TEXT)
def test_what_stayed_and_what_came_is_the_new_text_to_the_character(a: str, b: str) -> None:
    assert joined(word_diff(a, b), "same", "new") == b


@given(TEXT, TEXT)
def test_what_stayed_and_what_went_holds_every_word_of_the_old_text(a: str, b: str) -> None:
    assert joined(word_diff(a, b), "same", "gone").split() == a.split()


@given(TEXT)
def test_a_text_against_itself_has_no_change(a: str) -> None:
    assert {segment.kind for segment in word_diff(a, a)} <= {"same"}


@given(TEXT, TEXT)
def test_segments_are_never_empty_and_never_twice_the_same_kind_in_a_row(a: str, b: str) -> None:
    segments = word_diff(a, b)
    assert all(segment.text for segment in segments)
    assert all(one.kind != two.kind for one, two in pairwise(segments))


def test_one_changed_word_is_one_change() -> None:
    assert word_diff("Take the red pill.", "Take the blue pill.") == [
        Segment("same", "Take the"),
        Segment("gone", " red"),
        Segment("new", " blue"),
        Segment("same", " pill."),
    ]


def test_an_old_first_word_does_not_stick_to_the_new_one() -> None:
    assert word_diff("Sure! Take it.", "Take it.") == [Segment("gone", "Sure! "), Segment("same", "Take it.")]


def test_a_lone_common_word_between_two_changes_is_no_island() -> None:
    segments = word_diff("one two the three four", "five six the seven eight")
    assert [segment.kind for segment in segments] == ["gone", "new"]


def test_a_long_common_run_between_two_changes_is_kept() -> None:
    segments = word_diff("one a long common run two", "three a long common run four")
    assert Segment("same", " a long common run") in segments


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("word " * 200_000, "other " * 200_000),
        ("x" * 1_000_000, "y"),
        (" " * 1_000_000, "\n" * 1_000_000),
        ("a b " * 5_000, "b a " * 4_999),
    ],
    ids=["a million characters", "one huge word", "white space only", "just under the limit"],
)
def test_huge_texts_are_quick(a: str, b: str) -> None:
    start = time.perf_counter()
    assert joined(word_diff(a, b), "same", "new") == b
    assert time.perf_counter() - start < 3
