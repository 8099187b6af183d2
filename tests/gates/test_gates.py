"""Gates and pairs: damage seen in other pipelines is noticed here, and honest answers pass."""

from __future__ import annotations

import pytest

from cai.core.plugin_types import GateInput
from cai.core.refusals import refuses
from cai.core.types import Completion, Failure, Finish, GateHit, Message, Pair, Prompt, Step, Trace
from cai.gates.apply.gate import open_gates
from cai.gates.preamble import repaired
from cai.pipeline.stages.pair import pair
from cai.runs.recipe import GateSettings, PairSettings

PROMPT = Prompt("p", (Message("user", "How do I keep rice from sticking to the pot?"),))
BEFORE = (
    "Great question! There are many ways to keep rice from sticking. First, rinse the rice until the water runs "
    "clear. Then use enough water and a low flame, and let it rest for ten minutes with the lid on before you stir."
)
GOOD = "Rinse the rice, use enough water and a low flame, and let it rest covered for ten minutes."


def look(after: str, *, before: str = BEFORE, finish: Finish = "stop", prompt: Prompt = PROMPT, **gates: str | None):
    kept, hits = open_gates(GateSettings.model_validate(gates)).revision(after, before, finish, prompt)
    return kept, {hit.gate: hit.action for hit in hits}


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        "No. Rinse it first, and use a low flame.",
        "Here are three ways: rinse it, soak it, rest it.",
        "1. Rinse.\n2. Boil.\n3. Rest.",
        "Use a note: rice needs rest. Note that a low flame helps.",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "```python\nfor i in range(3):\n    print(i)\n```",
        "Wow! " + GOOD,
        "米を洗ってください。" * 2,
    ],
)
def test_honest_revisions_pass_untouched(good: str) -> None:
    assert look(good) == (good, {})


@pytest.mark.parametrize(
    ("bad", "gate"),
    [
        ("No revisions needed.", "no_revision"),
        ("No changes are necessary. The response is already clear and brief.", "no_revision"),
        ("N/A", "no_revision"),
        ("The answer is fine as it is.", "no_revision"),
        (BEFORE, "unchanged"),
        ("  " + BEFORE.replace(" ", "  "), "unchanged"),
        ("rinse the rice " * 30, "repetition"),
        ("Rinse it! 😀😀😀😀😀😀😀😀😀😀😀😀", "repetition"),
        ("The critique is right, so I cut the first sentence. Rinse the rice.", "meta"),
        ("I have rewritten the answer to be brief. Rinse the rice.", "meta"),
        ("Rinse the rice.\n\nNote: I removed the flattery from the answer.", "meta"),
        ("Rinse the rice.\nHuman: and then?\nAssistant: rest it.", "roles"),
        ("Critique: it is wordy.\nRevision: rinse the rice.", "roles"),
        ("Rinse the rice.<|im_end|>\n<|im_start|>user\nThanks!", "marks"),
        ("Rinse the rice.</s> And rest it.", "marks"),
        ("<reasoning>Rinse the rice first.", "marks"),
        ("◁think▷Rinse it. Then rest it.", "marks"),
        ('Rinse the rice.\n<text id="059260f781">\nRest it.', "marks"),
        ("**Critique:** it is wordy.\n\nRinse the rice.", "roles"),
        ("## Critique\nIt is wordy.\n\n## Revision\nRinse the rice.", "roles"),
        ("This response is honest, and the critique asks for no more.\nRinse the rice.", "meta"),
        ("OK", "no_revision"),
        (BEFORE + "\n\nNone.", "unchanged"),
        (
            "Enjuague el arroz hasta que el agua salga clara y luego use una llama baja para que no se pegue.",
            "language",
        ),
        ("Промойте рис холодной водой и варите на слабом огне под крышкой.", "language"),
    ],
)
def test_damage_is_noticed_and_the_answer_stays(bad: str, gate: str) -> None:
    kept, hits = look(bad)
    assert kept is None
    assert hits[gate] == "drop"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Sure! Here is the revised response:\n\n" + GOOD, GOOD),
        ("Here's a more concise version of the text:\n" + GOOD, GOOD),
        ("Revised answer: " + GOOD, GOOD),
        ("**Revision:** " + GOOD, GOOD),
        (f'Here is the rewritten text:\n"{GOOD}"', GOOD),
        ("Certainly, below is the shorter text you asked for:\n" + GOOD, GOOD),
    ],
)
def test_a_preamble_is_taken_off(text: str, rest: str) -> None:
    kept, hits = look(text)
    assert kept == rest
    assert hits == {"preamble": "repair"}


def test_a_whole_fence_of_our_own_is_taken_off() -> None:
    assert look(f'<text id="059260f781">\n{GOOD}\n</text id=059260f781>') == (GOOD, {"preamble": "repair"})


@pytest.mark.parametrize(
    "text", [GOOD, "Answer the door: it may be the plumber.", "Here is how: rinse it.", "Here is the revised response:"]
)
def test_what_is_no_preamble_stays(text: str) -> None:
    assert repaired(GateInput(BEFORE, text, "stop", PROMPT)) == (text, "")


def test_a_preamble_can_be_dropped_or_ignored_instead() -> None:
    text = "Here is the revised response: " + GOOD
    assert look(text, preamble="drop")[0] is None
    assert look(text, preamble=None, meta=None) == (text, {})


def test_words_that_the_conversation_uses_are_its_subject() -> None:
    prompt = Prompt(
        "p", (Message("user", "Explain the constitutional principle of equality, and the critique of it."),)
    )
    answer = "The constitutional principle of equality says that all are equal; the critique is that it is vague."
    assert look(answer, prompt=prompt)[0] == answer


@pytest.mark.parametrize(
    "text",
    [
        "Put `<|im_end|>` at the end of a turn.",
        "The page has <b>bold</b> and <s>old</s> words.",
        "```\n<think>\n```\nopens it.",
        "Call it with [arguments] or List<int>.",
    ],
)
def test_marks_in_code_and_html_are_text(text: str) -> None:
    assert "marks" not in look(text)[1]


def test_marks_that_the_prompt_has_are_its_subject() -> None:
    prompt = Prompt("p", (Message("user", "What does <|im_end|> do?"),))
    assert look("It is a token, <|im_end|> for short, and it ends a turn.", prompt=prompt)[1] == {}


def test_truncation_is_tagged_not_dropped() -> None:
    kept, hits = look(GOOD, finish="length")
    assert kept == GOOD
    assert hits == {"truncated": "tag"}


def test_drafts_are_only_ever_tagged() -> None:
    text = "I'm sorry, but I can't help with that. " + "la la la " * 40
    hits = open_gates(GateSettings(repetition="drop")).draft(text, "length", PROMPT)
    assert {hit.gate for hit in hits} == {"refusal", "repetition", "truncated"}
    assert {hit.action for hit in hits} == {"tag"}


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I cannot provide instructions for that.",
        "Sorry, I can’t help you with this request.",
        "As an AI language model, I am not able to give an opinion.",
        "I won't help with that.",
        "I must decline to answer.",
        "I apologize, but I cannot fulfill this request.",
    ],
)
def test_refusals_are_known_by_their_opening(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text", [GOOD, "You cannot help everyone, but you can help one.", "Sorry to hear about your cat!", ""]
)
def test_answers_are_no_refusals(text: str) -> None:
    assert refuses(text) is None


def trace(*answers: str | None, draft: str = BEFORE) -> Trace:
    steps = tuple(
        Step(number, f"principle-{number}", revision=Completion("x"), answer=answer,
             gates=() if answer else (GateHit("meta", "drop", "said so"),))
        for number, answer in enumerate(answers)
    )  # fmt: skip
    kept = [answer for answer in answers if answer is not None]
    return Trace(PROMPT, 0, Completion(draft), steps, kept[-1] if kept else draft)


def test_a_pair_is_the_draft_against_the_last_kept_revision() -> None:
    [made] = pair(trace("First version, long enough.", GOOD, None), PairSettings(), open_gates(GateSettings()))
    assert isinstance(made, Pair)
    assert (made.rejected, made.chosen, made.source) == (BEFORE, GOOD, "revision:0>2")
    assert made.principles == ("principle-0", "principle-1")


def test_rounds_are_paired_with_the_round_before() -> None:
    answers = ["One two three four.", "Five six seven.", "Eight nine."]
    made = [
        row
        for row in pair(trace(*answers), PairSettings(rounds=True), open_gates(GateSettings()))
        if isinstance(row, Pair)
    ]
    assert [row.source for row in made] == ["revision:0>3", "revision:0>1", "revision:1>2", "revision:2>3"]
    assert [(row.rejected, row.chosen) for row in made[1:]] == list(zip([BEFORE, *answers], answers, strict=False))


def test_no_kept_revision_is_a_failure_with_the_gates_reasons() -> None:
    [made] = pair(trace(None, None), PairSettings(), open_gates(GateSettings()))
    assert isinstance(made, Failure)
    assert made.kind == "gate:no_revision"
    assert "round 1: meta (said so); round 2: meta" in made.message


def test_chosen_never_equals_rejected() -> None:
    [made] = pair(trace("Another text entirely.", BEFORE), PairSettings(), open_gates(GateSettings()))
    assert isinstance(made, Failure)
    assert made.kind == "gate:near_identical"


def test_pairs_equal_after_truncation_are_turned_away() -> None:
    long = " ".join(f"word{n}" for n in range(60))
    hits = open_gates(GateSettings(max_length=50)).pair(
        long + " one ending of many words here", long + " other", PROMPT
    )
    assert [hit.gate for hit in hits] == ["truncated_equal"]


@pytest.mark.parametrize(("chosen", "rejected"), [("short", "word " * 30), ("word " * 30, "short")])
def test_length_is_watched_on_both_sides(chosen: str, rejected: str) -> None:
    hits = open_gates(GateSettings()).pair(chosen, rejected, PROMPT)
    assert [(hit.gate, hit.action) for hit in hits] == [("length_ratio", "tag")]


@pytest.mark.timeout(20)  # not a speed claim: a pattern that backtracks would take hours
@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "word " * 200_000, "a b " * 250_000, "\n" * 100_000 + "x", "<" * 500_000]
)
def test_a_megabyte_passes_the_gates_at_once(text: str) -> None:
    look(text)
    look(GOOD, before=text)
    open_gates(GateSettings()).pair(text, GOOD, PROMPT)
    open_gates(GateSettings()).pair(text, text + " more", PROMPT)
