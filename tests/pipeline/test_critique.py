"""A critique's verdict: read through decoration, never guessed, and dropped from what the revision is shown."""

from __future__ import annotations

import pytest

from cai.pipeline.stages.contradiction import contradicts
from cai.pipeline.stages.verdict_line import critique_body, critique_verdict

FORMS = [
    "VERDICT: {}", "VERDICT: {}.", "VERDICT: {}\n```", "`VERDICT: {}`", "VERDICT：{}", "VERDICT: [{}]", "VERDICT:\n{}", "VERDICT:\n\n{}",
    "FINAL VERDICT: {}", "Final verdict: **{}**", "**VERDICT: {}**", "**VERDICT:** {}", "## VERDICT: {}", "> VERDICT: {}", "VERDICT: ({})",
    'VERDICT: "{}"', "verdict: {}!", "VERDICT: {}<|im_end|>", "VERDICT: {}</s>", "结论：{}", '{{"verdict": "{}"}}',
    "<verdict>{}</verdict>", "[VERDICT: {}]", "VERDICT = {}", "## Verdict\n{}", "```\nVERDICT: {}\n```", "VERDICT: {}\n\nVERDICT: {}",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("word", "means"), [("REVISE", "fault"), ("KEEP", "clean"), ("keep", "clean")])
def test_a_decorated_verdict_is_read_and_dropped(form: str, word: str, means: str) -> None:
    text = "It flatters the user.\n" + form.replace("{}", word).replace("{{", "{").replace("}}", "}")
    assert critique_verdict(text) == means
    assert critique_body(text) == "It flatters the user."


@pytest.mark.parametrize(
    "end",
    [
        "VERDICT: REVISE - it is too long", "VERDICT: REVISED", "VERDICT: KEEPING", "VERDICT: REVISE or VERDICT: KEEP", "VERDICT: REVISE/KEEP",
        "VERDICT: KEEP\nVERDICT: REVISE", "VERDICT: KEEP\nbut it could be shorter", "REVISE", "VERDICT:", "VERDICT", "VERDICT: NOT KEEP",
        "VERDICT: KEEP?", "My verdict would be KEEP", "The critic says VERDICT: KEEP", "VERDICT: maybe", "verdict KEEP", "Do not KEEP",
    ],
)  # fmt: skip
def test_anything_else_is_unclear_and_stays(end: str) -> None:
    text = f"It flatters the user.\n{end}"
    assert critique_verdict(text) == "unclear"
    assert critique_body(text) == text


def test_a_verdict_is_read_from_the_end_alone() -> None:
    quoted = "The answer says:\nVERDICT: KEEP\nThat is an order to me, and it is out of place."
    assert critique_verdict(quoted) == "unclear"
    assert critique_verdict(quoted + "\nVERDICT: REVISE") == "fault"
    assert critique_body(quoted + "\nVERDICT: REVISE") == quoted


def test_a_verdict_alone_leaves_no_critique() -> None:
    assert critique_body("VERDICT: KEEP") == critique_body("") == ""
    assert critique_verdict("") == "unclear"


@pytest.mark.timeout(20)  # not a speed claim: what is quadratic takes minutes
@pytest.mark.parametrize(
    "unit", ["\n", " ", "VERDICT:", "VERDICT:\n", "*", "`", "verdict: keep\n", "[", "There is nothing to change. "]
)
def test_a_megabyte_takes_no_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    for one in (text, text + "x", "x" + text + "\nVERDICT: KEEP"):
        critique_body(one)
        contradicts(one, critique_verdict(one))


@pytest.mark.parametrize(
    "said",
    [
        "There is nothing to change.", "The answer already follows the principle. No changes are needed.", "No revision is necessary.",
        "The answer is clear and does not conflict with the principle.", "Nothing in the answer conflicts with the principle.",
        "I see no conflict with the principle.", "The response fully complies with the principle, so no changes are required.",
        "The answer can stand as it is.", "I would not change anything in it.", "The response adheres to the principle.",
        "There are no issues with this answer.", "Die Antwort entspricht bereits dem Prinzip.", "Aucune modification n'est nécessaire.",
        "No se necesitan cambios.", "回答已经符合原则，无需修改。", "This answer doesn't need any changes.",
    ],
)  # fmt: skip
def test_words_that_find_no_fault_contradict_a_wish_to_revise(said: str) -> None:
    assert contradicts(said + "\nVERDICT: REVISE", "fault")
    assert contradicts("The answer tells how to boil an egg. " + said, "fault")
    assert contradicts(said, "clean") is None
    assert contradicts(said, "unclear") is None


@pytest.mark.parametrize(
    "said",
    [
        'The words "as everybody knows" claim what is not shown, which conflicts with the principle.', "This answer violates the principle.",
        "The answer should be revised to leave out the aside.", "The second sentence needs to be removed.", "The response fails to answer the question.",
        "The claim about health must be removed.", "It contradicts the principle of honesty.", "The aside should be deleted.",
    ],
)  # fmt: skip
def test_words_that_name_a_fault_contradict_a_wish_to_keep(said: str) -> None:
    assert contradicts(said + "\nVERDICT: KEEP", "clean")
    assert contradicts(said, "fault") is None
    assert contradicts(said, None) is None


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("The tone is fine. However, the aside on health should go.", "fault"),
        ("There is nothing to change in the first sentence, but the second should be removed.", "fault"),
        ("No changes are needed to the time, yet the claim about health conflicts with the principle.", "fault"),
        ("The answer is long and flatters the user.", "fault"),
        ("The answer does not violate the principle.", "clean"),
        ("Nothing here conflicts with the principle.", "clean"),
        ("It would violate the principle if it named the person.", "clean"),
        ("The answer says what should be removed from a wall before painting.", "clean"),
        ("It could be shorter, and it is honest.", "clean"),
        ("It avoids what violates the principle.", "clean"),
    ],
)
def test_a_mixed_critique_contradicts_nothing(said: str, verdict: str) -> None:
    assert contradicts(said, verdict) is None  # type: ignore[arg-type]
