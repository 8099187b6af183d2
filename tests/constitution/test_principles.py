"""Constitutions: loading, identity, the draw's properties, comparison, and the files that ship.

Left out on purpose: what lint says about a broken file (test_lint) and foreign formats (test_foreign).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from cai.constitution.principles import (
    Change,
    changes,
    constitution_names,
    constitution_schema,
    data,
    draw_principle,
    load_constitution,
    new_constitution,
    principle_digest,
)
from cai.core.errors import Mistake
from cai.core.plugins import shipped
from cai.core.types import Constitution, Example, Message, Principle, Prompt

SHIPPED = ["concise", "default", "starter"]
PROMPTS = [Prompt(f"prompt-{number}", (Message("user", "hello"),)) for number in range(1500)]


def rules(*principles: Principle) -> Constitution:
    return Constitution("test", "1", principles, digest="")


def rule(id: str, **fields: object) -> Principle:
    return Principle(**{"id": id, "critique": f"Find {id}.", "revise": f"Mend {id}.", **fields})


def drawn(principles: list[Principle], seed: int = 0, round: int = 0, sample: int = 0) -> list[str]:
    return [draw_principle(rules(*principles), prompt, round, seed, sample).id for prompt in PROMPTS]


ids = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), min_size=2, max_size=8, unique=True)
seeds = st.integers(0, 2**31)


@st.composite
def weighted(draw_from: st.DrawFn) -> list[Principle]:
    return [rule(id, weight=draw_from(st.floats(0.1, 10))) for id in draw_from(ids)]


# --- The draw -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(principles=weighted(), seed=seeds)
def test_draws_follow_the_weights(principles: list[Principle], seed: int) -> None:
    counts, total = Counter(drawn(principles, seed)), sum(principle.weight for principle in principles)
    expected = {principle.id: len(PROMPTS) * principle.weight / total for principle in principles}
    statistic = sum((counts[id] - mean) ** 2 / mean for id, mean in expected.items())
    assert statistic < chi2.isf(1e-9, len(principles) - 1)


@settings(max_examples=25, deadline=None)
@given(principles=weighted(), seed=seeds, which=st.integers(0, 7), text=st.text(min_size=1))
def test_editing_a_principle_changes_no_draw(principles: list[Principle], seed: int, which: int, text: str) -> None:
    at = which % len(principles)
    edited = replace(principles[at], critique=text, revise=text, title=text, checks=(text,), priority=9)
    assert drawn(principles, seed) == drawn([*principles[:at], edited, *principles[at + 1 :]], seed)


@settings(max_examples=25, deadline=None)
@given(principles=weighted(), seed=seeds, weight=st.floats(1, 10))
def test_adding_a_principle_moves_only_its_own_share(principles: list[Principle], seed: int, weight: float) -> None:
    # read backwards, the same assertion says that removing a principle moves only what it had
    before, after = drawn(principles, seed), drawn([*principles, rule("the-new-one", weight=weight)], seed)
    assert all(old == new or new == "the-new-one" for old, new in zip(before, after, strict=True))
    assert "the-new-one" in after


@settings(max_examples=25, deadline=None)
@given(principles=weighted(), seed=seeds, factor=st.floats(1, 20))
def test_a_greater_weight_only_wins_draws(principles: list[Principle], seed: int, factor: float) -> None:
    heavier = replace(principles[0], weight=principles[0].weight * factor)
    before, after = drawn(principles, seed), drawn([heavier, *principles[1:]], seed)
    assert all(old == new or new == heavier.id for old, new in zip(before, after, strict=True))


@settings(max_examples=25, deadline=None)
@given(principles=weighted(), seed=seeds, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_principles_does_not_matter(principles: list[Principle], seed: int, shuffle: object) -> None:
    shuffled = list(principles)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    assert drawn(principles, seed) == drawn(shuffled, seed)


def test_rounds_samples_and_seeds_draw_independently() -> None:
    principles = [rule(id) for id in "abcd"]
    first = drawn(principles)
    for other in (drawn(principles, round=1), drawn(principles, sample=1), drawn(principles, seed=1)):
        same = sum(one == two for one, two in zip(first, other, strict=True))
        assert 0.19 < same / len(PROMPTS) < 0.31  # a quarter, give or take five standard errors


def test_a_draw_is_the_same_on_every_machine_and_in_every_version() -> None:
    principles = [rule("honest"), rule("kind", weight=2), rule("brief", weight=0.5)]
    assert " ".join(drawn(principles, seed=7)[:12]) == PINNED


PINNED = "kind kind honest honest honest kind kind kind brief kind kind brief"  # worked out by hand from SHA-256


def test_weight_zero_is_never_drawn() -> None:
    assert set(drawn([rule("on"), rule("off", weight=0)])) == {"on"}


def test_a_principle_for_some_prompts_is_drawn_for_those_only() -> None:
    principles = rules(rule("always"), rule("for-code", applies_to=("code", "maths")))
    tagged = [replace(prompt, tags=("maths",)) for prompt in PROMPTS]
    assert {draw_principle(principles, prompt, 0, 0).id for prompt in PROMPTS} == {"always"}
    assert {draw_principle(principles, prompt, 0, 0).id for prompt in tagged} == {"always", "for-code"}


def test_a_prompt_that_no_principle_applies_to_is_a_mistake() -> None:
    with pytest.raises(Mistake, match=r"prompt prompt-0: no principle .* applies .*; leave `applies_to` out"):
        draw_principle(rules(rule("for-code", applies_to=("code",)), rule("off", weight=0)), PROMPTS[0], 0, 0)


# --- Identity and comparison --------------------------------------------------------------------------------------

TEXT = """
name: mine
version: "1"
about: For tests.
tags: [a, b]
examples:
  - {prompt: p, answer: a, critique: c}
principles:
  - {id: one, title: One, critique: Find it., revise: Mend it., tags: [a], rationale: Because.}
  - {id: two, critique: Look there., revise: Change that., weight: 2, compare: Which is better?, checks: [Is it?]}
"""


def from_text(folder: Path, text: str) -> Constitution:
    file = folder / "constitution.yaml"
    file.write_text(text, encoding="utf-8")
    return load_constitution(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: mine", "name: yours"),
        ('version: "1"', 'version: "2"'),
        ("about: For tests.", "about: For you."),
        ("tags: [a, b]", "tags: [a, b, c]"),
        ("title: One", "title: Other"),
        ("tags: [a]", "tags: [b]"),
        ("rationale: Because.", "rationale: Why not."),
        ("principles:", "# a remark\nprinciples:"),
        ("weight: 2,", "weight: 2.0,"),
    ],
)
def test_what_no_model_sees_does_not_change_the_digest(tmp_path: Path, old: str, new: str) -> None:
    before, after = from_text(tmp_path, TEXT), from_text(tmp_path, TEXT.replace(old, new, 1))
    assert before.digest == after.digest
    assert changes(before, after) == []


@pytest.mark.parametrize(
    ("old", "new", "id", "field"),
    [
        ("Find it.", "Find them.", "one", "critique"),
        ("Mend it.", "Mend them.", "one", "revise"),
        ("Which is", "What is", "two", "compare"),
        ("[Is it?]", "[Is it?, Why?]", "two", "checks"),
        ("weight: 2", "weight: 3", "two", "weight"),
        ("id: one,", "id: one, priority: 1,", "one", "priority"),
        ("id: one,", "id: one, applies_to: [a],", "one", "applies_to"),
        ("id: one,", "id: one, examples: [{prompt: p, answer: a, critique: c}],", "one", "examples"),
        ("{prompt: p,", "{prompt: q,", None, "examples"),
    ],
)
def test_what_can_change_an_answer_or_a_draw_changes_the_digest(
    tmp_path: Path, old: str, new: str, id: str | None, field: str
) -> None:
    before, after = from_text(tmp_path, TEXT), from_text(tmp_path, TEXT.replace(old, new, 1))
    assert before.digest != after.digest
    assert changes(before, after) == [Change(id, "edited", (field,))]


def test_added_removed_and_renamed_principles_are_told_apart(tmp_path: Path) -> None:
    before, after = from_text(tmp_path, TEXT), from_text(tmp_path, TEXT.replace("id: one", "id: uno"))
    assert changes(before, after) == [Change("uno", "added"), Change("one", "removed")]


def test_the_order_of_principles_does_not_change_the_digest(tmp_path: Path) -> None:
    head, one, two = TEXT.rstrip().rsplit("\n", 2)
    assert from_text(tmp_path, TEXT).digest == from_text(tmp_path, "\n".join([head, two, one])).digest


def test_a_file_becomes_nouns(tmp_path: Path) -> None:
    found = from_text(tmp_path, TEXT)
    assert (found.name, found.version, found.about, found.tags) == ("mine", "1", "For tests.", ("a", "b"))
    assert found.examples == (Example("p", "a", "c", None),)
    assert found.principles == (
        Principle("one", "Find it.", "Mend it.", title="One", tags=("a",), rationale="Because."),
        Principle("two", "Look there.", "Change that.", weight=2.0, compare="Which is better?", checks=("Is it?",)),
    )


def test_the_first_error_is_raised_with_its_line_and_the_others_are_counted(tmp_path: Path) -> None:
    broken = TEXT.replace("Find it.", "''").replace("weight: 2", "wait: 2").replace("[Is it?]", "[3]")
    with pytest.raises(Mistake) as caught:
        from_text(tmp_path, broken)
    assert caught.value.where == f"{tmp_path / 'constitution.yaml'}:9"
    assert "principle 'one' has an empty 'critique'" in str(caught.value)
    assert "(and 2 more: cai constitution lint" in str(caught.value)


def test_warnings_do_not_stop_a_load(tmp_path: Path) -> None:
    assert from_text(tmp_path, TEXT.replace("id: one", "id: p1")).principles[0].id == "p1"


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(Mistake, match=r"defualt: is neither a file nor a shipped constitution; did you mean 'default'"):
        load_constitution("defualt")


def test_a_missing_file_is_a_mistake_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"gone\.yaml: cannot be read"):
        load_constitution(tmp_path / "gone.yaml")


# --- What ships ---------------------------------------------------------------------------------------------------


def test_the_shipped_constitutions_are_found_by_name() -> None:
    assert constitution_names() == SHIPPED
    assert [load_constitution(name).name for name in SHIPPED] == SHIPPED


def test_default_has_sixteen_complete_principles_of_equal_weight() -> None:
    principles = load_constitution("default").principles
    assert len(principles) == 16
    assert {principle.weight for principle in principles} == {1.0}
    for principle in principles:
        assert all([principle.title, principle.compare, principle.checks, principle.tags, principle.rationale])


def test_default_shows_every_principle_a_case_with_nothing_to_fix_among_the_first_two() -> None:
    found = load_constitution("default")
    for principle in found.principles:
        shown = (principle.examples + found.examples)[:2]
        assert None in {example.revision for example in shown}


def test_concise_speaks_of_the_text_and_has_two_worked_cases_each() -> None:
    for principle in load_constitution("concise").principles:
        assert principle.revise.startswith("Rewrite the text to make it")
        assert "more concise" in principle.revise
        faulty, clean = principle.examples
        assert clean.revision is None
        assert faulty.revision is not None
        assert len(faulty.revision.split()) < len(faulty.answer.split())


def test_worked_cases_of_concise_can_stand_in_plain_text() -> None:
    # the small model's few-shots are labelled lines that end at an empty line
    for example in (case for principle in load_constitution("concise").principles for case in principle.examples):
        for text in (example.prompt, example.answer, example.critique, example.revision or ""):
            assert "\n" not in text
            assert not text.startswith(("Question", "Answer", "Critique", "Revision"))


def test_a_new_constitution_loads_under_its_name(tmp_path: Path) -> None:
    assert from_text(tmp_path, new_constitution("my-rules")).name == "my-rules"


@pytest.mark.parametrize("name", ["", "../up", "My Rules", "a\nprinciples: []", "a" * 65])
def test_a_new_constitution_needs_a_name_that_can_be_a_file(name: str) -> None:
    with pytest.raises(Mistake, match="lower-case letters"):
        new_constitution(name)


def test_show_data_is_json_with_digests() -> None:
    found = load_constitution("concise")
    back = json.loads(json.dumps(data(found)))
    assert back["digest"] == found.digest
    assert [one["id"] for one in back["principles"]] == [one.id for one in found.principles]
    assert back["principles"][0]["digest"] == principle_digest(found.principles[0])


def test_the_committed_schema_is_the_one_the_code_has() -> None:
    committed = shipped("constitutions", "schema.json").read_text(encoding="utf-8")
    assert committed == json.dumps(constitution_schema(), indent=2) + "\n", "cai constitution schema > " + SCHEMA


SCHEMA = "constitutions/schema.json"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_tell_editors_their_schema(name: str) -> None:
    first = shipped("constitutions", f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"
