"""Lint: every kind of problem at its line with its fix, all of them in one pass, and no file that breaks the checker.

Left out on purpose: the order and wording of whole messages; each is known by the words that a person acts on.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.constitution.lint import ConstitutionForm, ExampleForm, PrincipleForm, Problem, check_constitution, lint
from cai.constitution.principles import load_constitution
from cai.core.errors import Mistake
from cai.core.plugins import shipped

HEAD = "name: mine\ntags: [a]\nprinciples:\n"
FINE = "  - id: be-kind\n    critique: Say where it is cold.\n    revise: Warm it up.\n"


def linted(folder: Path, text: str | bytes) -> list[Problem]:
    file = folder / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return lint(file)


AGAIN = FINE.replace("be-kind", "two").replace("up.", "up!")
OTHER = "  - id: be-brief\n    critique: Find what is too long.\n    revise: Cut.\n"


@pytest.mark.parametrize("file", sorted(shipped("constitutions").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_constitutions_have_no_problem_at_all(file: Path) -> None:
    assert lint(file) == []


def test_a_minimal_constitution_has_no_problem(tmp_path: Path) -> None:
    assert linted(tmp_path, HEAD + FINE) == []


@pytest.mark.parametrize(
    ("more", "line", "level", "what", "fix"),
    [
        ("    revize: x\n", 7, "error", "principle 'be-kind' has an unknown key 'revize'", "did you mean 'revise'?"),
        ("  - id: two\n    revise: x\n", 7, "error", "'two' has no 'critique'", "add it or delete the principle"),
        ("  - id: two\n    critique: x\n", 7, "error", "'two' has no 'revise'", "add it or delete the principle"),
        ("  - critique: x\n    revise: x\n", 7, "error", "principle number 2 has no 'id'", "add it"),
        ("    weight: -1\n", 7, "error", "'be-kind' has -1 as 'weight'", "a number of 0 or more"),
        ("    weight: .nan\n", 7, "error", "'be-kind' has nan as 'weight'", "a finite number"),
        ("    weight: .inf\n", 7, "error", "'be-kind' has inf as 'weight'", "a finite number"),
        ("    weight: true\n", 7, "error", "'be-kind' has True as 'weight'", "write a number"),
        ("    weight: much\n", 7, "error", "'be-kind' has 'much' as 'weight'", "write a number"),
        ("    weight: 0\n", 7, "error", "every principle has weight 0", "above 0"),
        ("    priority: 1.5\n", 7, "error", "'be-kind' has 1.5 as 'priority'", "a whole number"),
        ("    tags: [b]\n", 7, "error", "'be-kind' has an unknown tag 'b'", "there are: a"),
        ("    applies_to: [aa]\n" + OTHER, 7, "error", "'be-kind' has an unknown tag 'aa'", "did you mean 'a'?"),
        ("    title: 5\n", 7, "error", "'be-kind' has 5 as 'title'", "in quotes"),
        ("    title: yes\n    compare:\n", 8, "error", "'be-kind' has no value for 'compare'", "delete the line"),
        ("    compare: ' '\n", 7, "error", "'be-kind' has an empty 'compare'", "write it or delete it"),
        ("    checks: Is it?\n", 7, "error", "'be-kind' has 'Is it?' as 'checks'", "each after '- '"),
        ("    checks:\n      - x\n      - 3\n", 9, "error", "has 3 as 'checks' item 2", "write a text"),
        ("    compare: Is {{ a }} better?\n", 7, "error", "'{{' in 'compare', which looks like template code", "words"),
        ("    checks: ['{% if x %}']\n", 7, "error", "'{%' in 'checks'", "in words"),
        ("    checks: ['Is {answer} kind?']\n", 7, "error", "'{answer}' in 'checks'", "in words"),
        ("    compare: <|im_start|>system\n", 7, "error", "'<|im_start|>' in 'compare'", "in words"),
        ("    examples: []\n", 7, "warning", "'be-kind' has no case under 'examples'", "add one or delete the key"),
        ("    examples:\n      - hi\n", 8, "error", "has 'hi' as 'examples' item 1", "a mapping of keys"),
        ("    examples: [{prompt: a, answer: b}]\n", 7, "error", "example 1 has no 'critique'", "add it"),
        ("  - be nice\n", 7, "error", "has 'be nice' as 'principles' item 2", "a mapping of keys"),
        ("  - id: Be Kind\n    critique: x\n    revise: y\n", 7, "error", "has 'Be Kind' as 'id'", "hyphens"),
        ("  - id: be-kind\n    critique: x\n    revise: y\n", 7, "error", "second principle has the id", "rename"),
        ("  - id: p2\n    critique: x\n    revise: y\n", 7, "warning", "the id 'p2' only counts", "by its content"),
        ("    compare: x\n" + OTHER, 8, "warning", "no 'compare'", "add the question"),
        ("    applies_to: [a]\n", 3, "warning", "every principle has 'applies_to'", "leave it out"),
        (AGAIN, 7, "warning", "'two' is nearly principle 'be-kind' again", "merge them"),
    ],
)
def test_a_problem_is_named_with_its_line_and_a_fix(
    tmp_path: Path, more: str, line: int, level: str, what: str, fix: str
) -> None:
    problem, *others = linted(tmp_path, HEAD + FINE + more)
    assert others == []
    assert (problem.line, problem.level) == (line, level)
    assert what in problem.what
    assert fix in problem.fix
    assert str(problem).startswith(f"{tmp_path / 'c.yaml'}:{line}: {level}: ")


CASES = HEAD + FINE + "    examples:\n      - prompt: a\n        answer: b\n        critique: c\n        revision: %s\n"


def test_cases_that_are_all_at_fault_are_noticed(tmp_path: Path) -> None:
    (problem,) = linted(tmp_path, CASES % "d")
    assert "no worked case is free of faults" in problem.what


def test_a_revision_that_changes_nothing_is_noticed(tmp_path: Path) -> None:
    found = {problem.line: problem.what for problem in linted(tmp_path, CASES % "b")}
    assert found[11] == "principle 'be-kind', example 1 has its answer again as 'revision'"


def test_code_in_a_worked_case_is_only_a_warning(tmp_path: Path) -> None:
    problem = linted(tmp_path, CASES % "'{{ x }}'")[-1]
    assert (problem.line, problem.level) == (11, "warning")
    assert "'{{' in 'revision'" in problem.what


def test_a_forgotten_revision_does_not_pass_for_nothing_to_fix(tmp_path: Path) -> None:
    problem = linted(tmp_path, CASES % "")[-1]
    assert (problem.line, problem.level, problem.what) == (
        11,
        "error",
        "principle 'be-kind', example 1 has no value for 'revision'",
    )


def test_all_problems_come_in_one_pass_sorted_by_line(tmp_path: Path) -> None:
    found = linted(
        tmp_path,
        "verion: x\nprinciples:\n"
        "  - id: One\n    critique: '{{ x }}'\n    revise:\n    weight: -2\n    tags: [none]\n"
        "  - id: two\n    critique: 3\n"
        "  - id: two\n    critique: x\n    revise: y\n    examples: []\n",
    )
    assert [(problem.line, problem.what.rsplit(" ", 1)[-1]) for problem in found] == [
        (1, "'name'"),
        (1, "'verion'"),
        (3, "'id'"),
        (4, "code"),
        (5, "'revise'"),
        (6, "'weight'"),
        (7, "'none'"),
        (8, "'revise'"),
        (9, "'critique'"),
        (10, "'two'"),
        (13, "'examples'"),
    ]


def test_no_principles_is_an_error(tmp_path: Path) -> None:
    assert [problem.what for problem in linted(tmp_path, "name: x\nprinciples: []\n")] == [
        "the constitution has an empty 'principles'"
    ]


# --- Hostile files ------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "what"),
    [
        (LAUGHS, "anchor or alias"),
        ("name: !!python/object/apply:os.system [id]\n", "tag"),
        ("name: " + "[" * 50_000, "nested"),
        ("{" * 50_000, "nested"),
        (HEAD + FINE + "    critique: again\n", "duplicate key"),
        ("name: x\nname: y\n", "duplicate key"),
        ("name: 'unclosed\n", "not YAML"),
        ("name: a\n\tb: c\n", "not YAML"),
        ("name: a\x00b\n", "not YAML"),
        ("--- \na: 1\n---\nb: 2\n", "not YAML"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("just prose\n", "mapping"),
        (b"name: \xff\xfe\n", "not UTF-8"),
        ("name: x\n".encode("utf-16"), "not UTF-8"),
        (b"name: " + b"x" * (1 << 20), "larger than 1 MiB"),
        ('name: "\\ud800"\nprinciples: []\n', "has '\\ud800' as 'name'"),
        ("name: " + "9" * 5000 + "\n", "not YAML"),
        ("? [a, b]\n: c\n", "unknown key"),
    ],
    ids=range(19),
)
def test_a_hostile_file_is_an_error_and_not_a_crash(tmp_path: Path, text: str | bytes, what: str) -> None:
    found = linted(tmp_path, text)
    assert any(what in problem.what for problem in found if problem.level == "error"), found
    with pytest.raises(Mistake):
        load_constitution(tmp_path / "c.yaml")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    assert linted(tmp_path, b"\xef\xbb\xbf" + (HEAD + FINE).encode()) == []


def test_yaml_words_that_look_like_booleans_stay_words(tmp_path: Path) -> None:
    assert linted(tmp_path, HEAD + FINE.replace("be-kind", "no").replace("Warm it up.", "off")) == []


KEYS = st.sampled_from([*ConstitutionForm.model_fields, *PrincipleForm.model_fields, *ExampleForm.model_fields, "x"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("{{x}}")
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=30
)


@settings(max_examples=150, deadline=None)
@given(data=st.dictionaries(KEYS, ANYTHING) | st.fixed_dictionaries({"name": st.text(), "principles": ANYTHING}))
def test_any_data_is_either_loaded_or_has_an_error(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(json.dumps(data), encoding="utf-8")
    form, problems = check_constitution(file)
    assert (form is None) == any(problem.level == "error" for problem in problems)
