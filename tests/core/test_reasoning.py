"""Splitting a reasoning model's answer into what it says and what it thought."""

from __future__ import annotations

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
        ("[THINK]why[/THINK]Because.", "Because.", "why"),
        ("<thought>why</thought>Because.", "Because.", "why"),
        ("<reasoning>why</reasoning>\n<answer>\nBecause.\n</answer>", "Because.", "why"),
        ("<reasoning>why</reasoning>\nSo: <answer>Because.</answer>", "Because.", "why"),
        ("<think>why</think><response>Because.</response>", "Because.", "why"),
        ("<reflection>why</reflection>Because.", "Because.", "why"),
        ("<antThinking>why</antThinking>Because.", "Because.", "why"),
        ("<seed:think>why</seed:think>Because.", "Because.", "why"),
        ("◁think▷why◁/think▷Because.", "Because.", "why"),
        (
            "<|begin_of_thought|>why<|end_of_thought|>\n<|begin_of_solution|>Because.<|end_of_solution|>",
            "Because.",
            "why",
        ),
        ("<|START_THINKING|>why<|END_THINKING|><|START_RESPONSE|>Because.<|END_RESPONSE|>", "Because.", "why"),
        ("<unused94>thought\nwhy<unused95>Because.", "Because.", "why"),
        ("<|channel>thought\nwhy<channel|>Because.", "Because.", "why"),
        ("Here is my thought process: why\n\nHere is my response: Because.", "Because.", "why"),
        (
            "Here are my reasoning steps:\nwhy\n[BEGIN FINAL RESPONSE]\nBecause.\n[END FINAL RESPONSE]",
            "Because.",
            "why",
        ),
        ("<|im_start|>assistant\n<think>why</think>\nBecause.<|im_end|>", "Because.", "why"),
        ("<think>```py\nx</think>\n```py\ny\n```", "```py\ny\n```", "```py\nx"),
        ("<think>write `</think>` here</think>Because.", "Because.", "write `</think>` here"),
        (
            "<thinking>one<reflection>two</reflection>three</thinking>Because.",
            "Because.",
            "one<reflection>two\n\nthree",
        ),
    ],
)
def test_thinking_is_split_off(text: str, answer: str, thinking: str | None) -> None:
    assert split_thinking(text) == (answer, thinking)


END_TOKENS = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|return|>",
    "</s>",
    "<end_of_turn>",
    "<eos>",
    "<|end_of_text|>",
    "[/INST]",
    "[EOS]",
    "<|eom_id|>",
    "<｜end▁of▁sentence｜>",
    "[|endofturn|]",
    "<turn|>",
]
ANALYSIS = "<|channel|>analysis<|message|>why<|end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>Because."


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        (ANALYSIS + FINAL + "<|return|>", "Because.", "why"),
        (ANALYSIS + "<|start|>assistant" + ANALYSIS + FINAL, "Because.", "why\n\nwhy"),
        ("why<|end|>" + FINAL, "Because.", "why"),
        ("<|channel|>final<|message|>Because.<|return|>", "Because.", None),
        (ANALYSIS, "", "why"),
        (ANALYSIS + "Because.", "Because.", "why"),
        ("analysisThe user asks.assistantfinalBecause.", "Because.", "The user asks."),
        ("The user asks.assistantfinalBecause.", "Because.", "The user asks."),
        ("analysisThe user asks, and it was cut", "", "The user asks, and it was cut"),
        ("analysis of variance compares means", "analysis of variance compares means", None),
        ("The word assistantfinal joins two names.", "The word assistantfinal joins two names.", None),
    ],
)
def test_channels_are_split_with_and_without_their_tokens(text: str, answer: str, thinking: str | None) -> None:
    assert split_thinking(text) == (answer, thinking)


@pytest.mark.parametrize(
    "text",
    [
        "Use `<think>` and `</think>`.",
        "```\n<think>\nwhy\n</think>\n```\nThat is the form.",
        "~~~xml\n<reasoning>why</reasoning>\n~~~",
        'It writes "<think>" first and "</think>" last.',
        "Call `text.split('</think>')` on it.",
        "``[THINK]`` opens it, ``[/THINK]`` closes it.",
        "Was <s>10</s>",
        "</s> is the token that ends a text.",
        "`<|im_end|>` ends a turn.",
        "See [the page](x), [1] and List<String>, if a < b and a<b.",
        "<p>Put it in water.</p>",
        "Assistants: three of them.",
    ],
)
def test_a_mark_that_is_only_mentioned_stays(text: str) -> None:
    assert split_thinking(text) == (text, None)


@pytest.mark.parametrize("token", END_TOKENS)
def test_tokens_that_end_a_turn_are_taken_off(token: str) -> None:
    for text in (f"Because.{token}", f"Because. {token}\n{token}\n", f"{token}Because."):
        assert split_thinking(text) == ("Because.", None)


@pytest.mark.parametrize(
    "head",
    [
        "assistant: ", "Assistant:\n", "assistant\n\n", "<|im_start|>assistant\n", "<start_of_turn>model\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n", "<s>", "<|assistant|>\n", "<｜Assistant｜>",
    ],
)  # fmt: skip
def test_a_role_header_is_taken_off(head: str) -> None:
    assert split_thinking(head + "Because.") == ("Because.", None)


def test_the_start_of_another_turn_is_taken_off() -> None:
    assert split_thinking("Because.<|im_end|>\n<|im_start|>user") == ("Because.", None)


@given(PIECES)
def test_no_whole_thought_is_left_in_an_answer(pieces: list[str]) -> None:
    answer, _ = split_thinking("".join(pieces))
    assert "</think" not in answer.lower()


@given(st.text())
def test_text_without_tags_is_left_alone(text: str) -> None:
    if not {"<", "[", "◁"} & set(text) and not text.strip().lower().startswith("a"):
        assert split_thinking(text) == (text, None)


@pytest.mark.timeout(20)  # not a speed claim: what is quadratic takes minutes
@pytest.mark.parametrize("start", ["", "<think>", "a"])
@pytest.mark.parametrize(
    "piece",
    [
        "<think>", "</think>", "<think></think>", "x<think>", " " * 8, "<", "[", "|", "\n", "<|", "</s>", "<s>", "`", "`` ",
        "</think> `", "<think>\n```\n", "[THINK]", "<|end|>", "<|channel|>final ", "analysis", ".assistantfinal", "<answer>",
    ],
)  # fmt: skip
def test_a_megabyte_of_marks_takes_no_time(start: str, piece: str) -> None:
    split_thinking(start + piece * (1_000_000 // len(piece)))


def test_a_megabyte_of_nothing_special_is_not_read_twice() -> None:
    text = "Put the egg in water. " * 50_000
    assert split_thinking(text)[0] is text
