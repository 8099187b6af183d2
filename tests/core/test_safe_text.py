"""Foreign text on a terminal: no sequence survives that steers, reorders or hides."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.core.safe_text import safe_text

ANY = st.text(alphabet=st.characters(), max_size=80)


@given(ANY)
def test_no_control_character_and_no_half_surrogate_is_left(text: str) -> None:
    left = {character for character in safe_text(text) if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")}
    assert left <= {"\n", "\t"}
    safe_text(text).encode("utf-8")


@given(st.text(alphabet="\u202a\u202e\u2066\u2069\u200e\u200b\ufeff\u2060\u061c\u00ad\x1b\x9ba1 ", max_size=40))
def test_no_direction_mark_and_nothing_of_zero_width_is_left_in_plain_text(text: str) -> None:
    assert not any(unicodedata.category(character) in ("Cf", "Cc") for character in safe_text(text))


@given(ANY)
def test_making_safe_twice_is_making_safe_once(text: str) -> None:
    assert safe_text(safe_text(text)) == safe_text(text)


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80))
def test_plain_text_is_left_alone(text: str) -> None:
    assert safe_text(text) == text


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\", "␛]8;;https://evil.example␛\\here␛]8;;␛\\"),
        ("\x9b2J", "⟨U+009B⟩2J"),
        ("user\u202egnp.exe", "user⟨U+202E⟩gnp.exe"),
        ("bo\u200bmb", "bo⟨U+200B⟩mb"),
        ("bo\u200dmb", "bo⟨U+200D⟩mb"),
        ("\U000e0041\U000e0042", "⟨U+E0041⟩⟨U+E0042⟩"),
        ("half \ud83d an emoji", "half ⟨U+D83D⟩ an emoji"),
        ("over\rwritten\x08\x7f", "over␍written␈␡"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("line\u2028end", "line⟨U+2028⟩end"),
    ],
)
def test_what_would_hide_is_shown(text: str, seen: str) -> None:
    assert safe_text(text) == seen


@pytest.mark.parametrize("text", ["\u0642\u0635\u0647\u200c\u0647\u0627", "👩\u200d🚀", "❤\ufe0f", "שלום", "汉字", "é"])
def test_words_and_emoji_that_need_joiners_stay_whole(text: str) -> None:
    assert safe_text(text) == text


def test_a_megabyte_of_escapes_is_quick() -> None:
    assert safe_text("\x1b\u200d" * 500_000).count("␛") == 500_000
