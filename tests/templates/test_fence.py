"""The cut: what models return inside the fence that they were shown is taken out exactly, or not at all."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.core.types import Message
from cai.templates.fence import Cut, cut_fence, unfenced
from cai.templates.sandbox import FILTERS

ID = "059260f781"
BEGIN, END = f'<text id="{ID}">', f'</text id="{ID}">'
QUESTION, ANSWER, CRITIQUE = "What is\nthing 1?", "The old answer is here.", "It is long."
NEW = "A new answer: x < y.\n\n- with a list\n- and <b>marks</b> of its own"


def asked(*texts: str) -> tuple[Message, ...]:
    shown = "\n\n".join(FILTERS["fence"](text, ID) for text in texts)
    return Message("system", "Rewrite it."), Message("user", f"Conversation:\n{shown}\nReply.")


MESSAGES = asked(QUESTION, ANSWER, CRITIQUE, "the new answer")


def cut(text: str, messages: tuple[Message, ...] = MESSAGES) -> Cut | None:
    return cut_fence(text, ID, messages, ANSWER)


EXACT = {
    "whole": f"{BEGIN}\n{NEW}\n{END}",
    "only opened": f"{BEGIN}\n{NEW}",
    "only closed": f"{NEW}\n{END}",
    "closed by any id": f'{NEW}\n</text id="9999999999">',
    "closed without an id": f"{NEW}\n</text>",
    "nested": f"{BEGIN}\n{BEGIN}\n{NEW}\n{END}\n{END}",
    "an end without a bracket": f"{BEGIN}\n{NEW}\n</text",
    "an end cut in the name": f"{BEGIN}\n{NEW}\n</te",
    "an end cut at once": f"{BEGIN}\n{NEW}\n<",
    "an end cut before the id": f"{BEGIN}\n{NEW}\n</text id=",
    "an end cut in the id": f'{BEGIN}\n{NEW}\n</text id="0592',
    "an end on the last line": f"{BEGIN}\n{NEW}</text>",
    "a wrong id in the end": f'{BEGIN}\n{NEW}\n</text id="1234567890">',
    "a wrong id in the beginning": f'<text id="1234567890">\n{NEW}\n{END}',
    "no quotes": f"<text id={ID}>\n{NEW}\n</text id={ID}>",
    "no brackets at the end": f'<text id="{ID}"\n{NEW}\n</text id="{ID}"',
    "capitals": f'<TEXT ID="{ID}">\n{NEW}\n</TEXT ID="{ID}">',
    "capitals in the id": f'<text id="{ID.upper()}">\n{NEW}\n</text id="{ID.upper()}">',
    "spaces": f'< text id = "{ID}" >\n{NEW}\n< / text id = "{ID}" >',
    "full width": f'＜text id="{ID}"＞\n{NEW}\n＜/text id="{ID}"＞',
    "escaped": f'&lt;text id="{ID}"&gt;\n{NEW}\n&lt;/text id="{ID}"&gt;',
    "square": f'[text id="{ID}"]\n{NEW}\n[/text id="{ID}"]',
    "bare ids": f"{ID}\n{NEW}\n{ID}",
    "opened twice": f"{BEGIN}\n{NEW}\n{BEGIN}",
    "closed by an empty element": f'{BEGIN}\n{NEW}\n<text id="{ID}"/>',
    "in one line": f"{BEGIN}{NEW}{END}",
    "in a code block": f"```\n{BEGIN}\n{NEW}\n{END}\n```",
    "bold": f"**{BEGIN}**\n{NEW}\n**{END}**",
    "returns": f"{BEGIN}\r\n{NEW}\r\n{END}\r\n",
    "with an opening": f"Here is the revision:\n\n{BEGIN}\n{NEW}\n{END}",
    "with a closing": f"{BEGIN}\n{NEW}\n{END}\n\nI made it shorter.",
    "after a label": f"Answer: {BEGIN}\n{NEW}\n{END}",
    "after the question in its fence": f"{BEGIN}\n{QUESTION}\n{END}\n\n{BEGIN}\n{NEW}\n{END}",
    "after the question in a broken fence": f"{BEGIN}\n{QUESTION}\n\n{BEGIN}\n{NEW}\n{END}",
    "plain after the question in its fence": f"{BEGIN}\n{QUESTION}\n{END}\n\n{NEW}",
    "before the critique in its fence": f"{BEGIN}\n{NEW}\n{END}\n\nCritique:\n{BEGIN}\n{CRITIQUE}\n{END}",
    "in French": f'<texte id="{ID}">\n{NEW}\n</texte id="{ID}">',
    "in French, ended without the id": f'<texte id="{ID}">\n{NEW}\n</texte>',
    "in Chinese": f'<文本 id="{ID}">\n{NEW}\n</文本>',
    "under another id": f'<text id="1234567890">\n{NEW}\n</text id="1234567890">',
    "under a word": f'<text id="answer">\n{NEW}\n</text id="answer">',
    "under an id cut short": f'<text id="{ID[:-2]}">\n{NEW}\n</text id="{ID[:-2]}">',
}


@pytest.mark.parametrize("form", EXACT)
def test_what_stands_in_the_fence_is_taken_exactly(form: str) -> None:
    found = cut(EXACT[form])
    assert found and found.inside.replace("\r", "") == NEW and found.action == "repair"
    assert not [text for text in (found.outside, found.whole, found.why) if ID in text.lower()]


UNCERTAIN = {
    "empty": (f"{BEGIN}\n{END}", "nothing in the fence"),
    "empty, with text outside": (f"An answer.\n{BEGIN}\n{END}", "nothing in the fence"),
    "the question alone": (f"{BEGIN}\n{QUESTION}\n{END}", "nothing in the fence but what was shown"),
    "the form that was shown": (f"{BEGIN}\nthe new answer\n{END}", "nothing in the fence but what was shown"),
    "texts at two depths": (f"{BEGIN}\none\n{BEGIN}\ntwo\n{END}\nthree\n{END}", "another inside it"),
    "text after an end that was none": (f"{BEGIN}\n{NEW}\n{BEGIN}\nI made it shorter.", "another inside it"),
    "the earlier answer, then a text": (f"{BEGIN}\n{ANSWER}\n{END}\n{NEW}", "the earlier answer"),
    "another id in the middle": (f'One.\n<text id="1234567890">\n{NEW}\n</text id="1234567890">\nTwo.', "another id"),
    "another word in the middle": ('See <text id="answer"> for it.', "a look-alike"),
    "the id in a sentence": (f"I kept {BEGIN} as it was.\nIt is fine.", "nothing in the fence"),
    "the id inside the fence": (f"{BEGIN}\nAs {ID} says, it is fine.\n{END}", "within the text"),
}


@pytest.mark.parametrize("form", UNCERTAIN)
def test_what_has_two_readings_is_turned_away_and_says_why(form: str) -> None:
    text, why = UNCERTAIN[form]
    found = cut(text)
    assert found and found.action == "drop" and why in found.why and ID not in found.why + found.whole


@pytest.mark.parametrize(
    "text",
    ["x < y", "<svg><text x='1'>hi</text></svg>", "<div>\n<text>hi\n</text>\n</div>", "a\n</div>", "<textarea id='x'>"],
)
def test_an_answer_without_a_mark_is_left_alone(text: str) -> None:
    assert cut(text) is None


def test_an_element_of_a_drawing_inside_the_fence_stays() -> None:
    drawing = "<svg>\n<text x='1'>hi</text>\n</svg>"
    assert [
        found.inside for found in (cut(f"{BEGIN}\n{drawing}\n{END}"), cut(f"{BEGIN}\n{drawing}\n</text")) if found
    ] == [drawing] * 2


def test_a_look_alike_that_the_question_had_is_kept_and_tagged() -> None:
    drawing = '<svg><text id="title">hi</text></svg>'
    for text in (drawing, f"{BEGIN}\n{drawing}\n{END}"):
        found = cut_fence(text, ID, asked(drawing), drawing)
        assert found and found.inside == drawing and found.action == "tag"


def test_a_question_without_a_fence_has_no_marks() -> None:
    assert cut_fence(f"{BEGIN}\n{NEW}\n{END}", ID, (Message("user", "hello"),)) is None


def test_a_verdict_is_read_outside_the_fence_and_the_critique_keeps_both() -> None:
    found = cut(f"{BEGIN}\nToo long.\nVERDICT: KEEP\n{END}\nVERDICT: REVISE")
    assert found and found.outside == "VERDICT: REVISE" and found.whole == "Too long.\nVERDICT: KEEP\n\nVERDICT: REVISE"
    within = cut(f"{BEGIN}\nToo long.\nVERDICT: KEEP\n{END}")
    assert within and within.outside == ""


def test_text_that_is_only_kept_loses_every_mark() -> None:
    assert unfenced(f"so {BEGIN} says {ID} and\n{BEGIN}\nx\n{END}", ID).split() == ["so", "says", "and", "x"]


PIECES = [
    BEGIN,
    END,
    ID,
    "<text",
    "</text",
    '<text id="',
    "</",
    "<",
    ">",
    '"',
    "\n",
    " ",
    "word",
    QUESTION,
    ANSWER,
    "</text>",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
def test_no_mark_remains_in_what_is_taken(text: str) -> None:
    found = cut(text)
    if found is None:
        assert ID not in text and "<text id" not in text
    elif found.action == "repair":
        assert not [mark for mark in (ID, "<text id", "</text id") if mark in found.inside] and found.inside
    if found:
        assert ID not in found.whole + found.outside + found.why


@pytest.mark.parametrize(
    "piece",
    [
        "\n",
        "<",
        "[",
        " ",
        "\r",
        "\u200b",
        "question",
        ID,
        f"{BEGIN}\n",
        f"{END}\n",
        f"<{ID}",
        "</text\n",
        "< / text id=ab",
    ],
)
def test_four_times_the_text_takes_about_four_times_as_long(piece: str) -> None:
    spent = []
    for size in (1 << 14, 1 << 16):
        started = time.perf_counter()
        cut(f"{BEGIN}\n{piece * (size // len(piece))}\n{END}")
        spent.append(time.perf_counter() - started)
    assert spent[1] < 12 * spent[0] + 0.5
