"""Filters: control tokens and look-alikes of the fence are broken, and no text takes them more than linear time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_templates import LOADED, SHIPPED, values

from cai.templates.sandbox import FILTERS

TOKENS = [
    "<|im_end|>", "<|start_header_id|>", "<|channel|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>", "<｜User｜>",
    "<｜end▁of▁sentence｜>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "[THINK]",
    "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[/THINK]", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>",
    "<start_of_turn>", "<end_of_turn>", "<extra_id_0>", "<unused17>", "<seed:think>", "</seed:think>", "◁think▷",
    "◁/think▷", "<think>", "</think>", "<tool_call>", "<<SYS>>", "<</SYS>>", "<EOS_TOKEN>",
]  # fmt: skip
ORDINARY = [
    "a < b and c > d", "List[int]", "Vec<S>", "<mask id='m'>", "[a link](http://x)", "f <| g x > y", "<div>", "[1]",
]  # fmt: skip
HOSTILE = {
    "line feeds": "\n", "angles": "<", "squares": "[", "spaces": " ", "returns": "\r", "zero-width": "\u200b",
    "labels": "question", "label lines": "question\n", "open labels": "\nbetter \u200b", "indents": "\n ", "ends": "</",
    "spaced angles": "< ", "bars": "<|", "answers": "\n answer\n\n", "triangles": "◁", "halves": "<t\u200bex",
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_control_tokens_of_every_family_are_broken_visibly(name: str) -> None:
    for token in TOKENS:
        printed = FILTERS[name](f"x {token} y", "N")
        assert token not in printed and token[1:] in printed


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_printed_as_it_is(name: str, text: str) -> None:
    assert text in FILTERS[name](f"x {text} y", "N")


@pytest.mark.parametrize("before", ["", " ", "\n", "\u200b", "\t\u2060 ", "/", " / ", "\u200b/\n", "\\"])
def test_look_alikes_of_the_fence_are_broken_visibly(before: str) -> None:
    for angle, word in product("<＜", ["text", "TEXT", "t\u200bext", "ｔｅｘｔ"]):
        assert f'‹{before}{word} id="N">' in FILTERS["fence"](f'a\n{angle}{before}{word} id="N">\nb', "N")


_OLD_BLANK = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]"
_OLD_LABEL = re.compile(
    rf"^({_OLD_BLANK}*)(question|(?:better{_OLD_BLANK}+)?answer(?:{_OLD_BLANK}+[ab])?|reply"
    rf"|critique{_OLD_BLANK}*request|critique|revision{_OLD_BLANK}*request|revision|verdict|rule|check|comparison|score"
    rf"|human|assistant|user)({_OLD_BLANK}*):",
    re.IGNORECASE | re.MULTILINE,
)


def plain_before(text: str) -> str:
    """What the filter printed when its pattern was quadratic; journals hold answers to that."""
    text = re.sub(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", text)
    return re.sub(r"\n\s*\n+", "\n", _OLD_LABEL.sub(r"\1\2\3 -", text)).strip()


PIECES = ["\n", "\r\n", "\r", " ", "\t", "\u200b", "\u2028", "\x1f", "\xa0", ":", "x", "question", "Better", "answer", "a",
          "B", "critique", "REQUEST", "revision", "user", "rule", "score:", "answer:", "critique request:"]  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text("\n \r\u200b:xreply", max_size=20))
def test_plain_prints_what_it_always_printed(text: str) -> None:
    assert FILTERS["plain"](text, "") == plain_before(text)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("name", FILTERS)
def test_four_times_the_text_takes_a_filter_about_four_times_as_long(name: str, what: str) -> None:
    small, large = (HOSTILE[what] * (size // len(HOSTILE[what])) for size in (1 << 16, 1 << 18))
    least = min(seconds(lambda: FILTERS[name](small, "N")) for _ in range(3))
    assert seconds(lambda: FILTERS[name](large, "N")) < 12 * least + 0.5  # quadratic: 16 times, and minutes


@pytest.mark.slow
@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("name", FILTERS)
def test_four_megabytes_take_a_filter_about_four_times_as_long_as_one(name: str, what: str) -> None:
    one, four = (HOSTILE[what] * (size // len(HOSTILE[what])) for size in (1 << 20, 1 << 22))
    least = min(seconds(lambda: FILTERS[name](one, "N")) for _ in range(2))
    assert seconds(lambda: FILTERS[name](four, "N")) < 8 * least + 0.5


@pytest.mark.parametrize(("stage", "name"), SHIPPED)
def test_no_text_holds_up_a_shipped_template(stage: str, name: str) -> None:
    def render(count: int) -> None:
        for piece in HOSTILE.values():
            LOADED[stage, name].render(values(piece * (count // len(piece)), stage), "N")

    assert seconds(lambda: render(1 << 14)) < 20  # a quadratic pattern would take minutes


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name"), SHIPPED)
def test_a_megabyte_of_anything_holds_up_no_shipped_template(stage: str, name: str) -> None:
    for piece in HOSTILE.values():
        one, four = (values(piece * (size // len(piece)), stage) for size in (1 << 20, 1 << 22))
        least = seconds(lambda one=one: LOADED[stage, name].render(one, "N"))
        assert seconds(lambda four=four: LOADED[stage, name].render(four, "N")) < 8 * least + 0.5
