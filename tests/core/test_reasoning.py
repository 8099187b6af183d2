"""Splitting a reasoning model's answer into what it says and what it thought."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.core.reasoning import split_thinking

PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<Thinking>", "</thinking>", "\n", " ", "a", "bc."]), max_size=12
)


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("Just an answer.", "Just an answer.", None),
        ("<think>why</think>\n\nBecause.", "Because.", "why"),
        ("<think>cut off while thin", "", "cut off while thin"),
        ("<think></think>Because.", "Because.", ""),
        ("the template opened it</think>Because.", "Because.", "the template opened it"),
        ("One. <think>hm</think>Two.", "One. Two.", "hm"),
        ("Write <think> before you reason.", "Write <think> before you reason.", None),
        ("Yes.\n<think>and then it was cut", "Yes.", "and then it was cut"),
        ("<THINKING>why</THINKING>Because.", "Because.", "why"),
    ],
)
def test_thinking_is_split_off(text: str, answer: str, thinking: str | None) -> None:
    assert split_thinking(text) == (answer, thinking)


@given(PIECES)
def test_no_whole_thought_is_left_in_an_answer(pieces: list[str]) -> None:
    answer, _ = split_thinking("".join(pieces))
    assert "</think" not in answer.lower()


@given(st.text())
def test_text_without_tags_is_left_alone(text: str) -> None:
    if "think" not in text.lower():
        assert split_thinking(text) == (text, None)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "x<think>", " " * 8])
def test_a_megabyte_of_tags_takes_no_time(piece: str) -> None:
    start = time.perf_counter()
    split_thinking(piece * (1_000_000 // len(piece)))
    assert time.perf_counter() - start < 3
