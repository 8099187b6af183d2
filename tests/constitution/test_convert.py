"""Import: what other projects' files become, which are refused and why, and that no text is lost on the way.

Published samples are read by path where they exist; a small file of our own in each format stands in for them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.constitution.convert import convert
from cai.constitution.lint import lint
from cai.constitution.principles import load_constitution
from cai.core.errors import Mistake
from cai.core.types import Constitution, Example

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "constitutions"
published = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no published samples beside this checkout")


def imported(source: Path, folder: Path) -> Constitution:
    file = folder / "imported.yaml"
    file.write_text(convert(source), encoding="utf-8")
    assert [problem for problem in lint(file) if problem.level == "error"] == []
    return load_constitution(file)


def as_file(folder: Path, content: object, name: str = "source.json") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


# --- Critique and revision requests -------------------------------------------------------------------------------

LANGCHAIN = [
    {"name": "cold", "critique_request": "Is it cold?", "revision_request": "Warm it up."},
    {"name": "Über-Long!", "critique_request": "Is it long?", "revision_request": "Cut it."},
]


def test_a_langchain_list_keeps_its_names_as_ids(tmp_path: Path) -> None:
    cold, long = imported(as_file(tmp_path, LANGCHAIN), tmp_path).principles
    assert (cold.id, cold.critique, cold.revise) == ("cold", "Is it cold?", "Warm it up.")
    assert long.id == "uber-long"


def test_nemo_requests_lose_their_labels(tmp_path: Path) -> None:
    prompt = ["\n\nCritiqueRequest: Is it cold?\n\nCritique:"]
    nemo = {"harmful0": {"prompt": prompt, "edit_request": "\n\nRevisionRequest: Warm it up.\n\nRevision:"}}
    (principle,) = imported(as_file(tmp_path, nemo), tmp_path).principles
    assert (principle.id, principle.critique, principle.revise) == ("harmful0", "Is it cold?", "Warm it up.")


SWARM = {
    "constitutions": [
        {"critic": "Is it cold?", "revision": "Please rewrite the response so that it is warmer."},
        {"critic": "Is it long?", "revision": "Please rewrite the response so that it is shorter."},
    ],
    "system_chat": [
        chat("Hi", "Go away.", "Is it cold?", "Yes, very.", "Warm it.", "Hello!"),
        chat("2+2?", "4", "Is it right?", "Yes.", "Mend it.", "4"),
        chat("Hi", "Hello"),
    ],
}


def test_llm_swarm_chats_become_worked_cases_of_the_principle_they_use(tmp_path: Path) -> None:
    found = imported(as_file(tmp_path, SWARM), tmp_path)
    cold, long = found.principles
    assert cold.examples == (Example("Hi", "Go away.", "Yes, very.", "Hello!"),)
    assert long.examples == ()
    assert found.examples == (Example("2+2?", "4", "Yes.", None),)


def test_what_is_left_behind_is_said_in_the_file(tmp_path: Path) -> None:
    text = convert(as_file(tmp_path, SWARM))
    assert "# 1 of 3 chats are not question, answer, critique, revision, and were left out." in text
    text = convert(as_file(tmp_path, [LANGCHAIN[0] | {"scale": 3, "line\nbreak": 1}]))
    assert '# Left out, since cai has no field for it: "line\\nbreak", "scale".\n' in text


def test_principles_without_names_get_ids_from_their_words_and_not_their_place(tmp_path: Path) -> None:
    found = imported(as_file(tmp_path, SWARM), tmp_path)
    turned = SWARM | {"constitutions": SWARM["constitutions"][::-1]}
    again = imported(as_file(tmp_path, turned), tmp_path)
    assert {one.id: one.critique for one in found.principles} == {one.id: one.critique for one in again.principles}
    assert "warmer" in found.principles[0].id


def test_equal_names_are_told_apart_by_content(tmp_path: Path) -> None:
    twice = [LANGCHAIN[0], LANGCHAIN[1] | {"name": "cold"}]
    first, second = imported(as_file(tmp_path, twice), tmp_path).principles
    assert first.id != second.id
    assert first.id.startswith("cold-")
    assert second.id.startswith("cold-")


def test_a_principle_with_one_request_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"source\.json: principle cold: has no single text under revise or"):
        convert(as_file(tmp_path, [{"name": "cold", "critique_request": "Is it?"}]))


texts = st.text(st.characters(exclude_characters="{}<", exclude_categories=["Cs"]) | st.just("\n"), min_size=1)
words = texts.map(str.strip).filter(lambda text: text and "ritique" not in text and "evision" not in text)


@settings(max_examples=150, deadline=None)
@given(critique=words, revise=words)
def test_texts_come_through_unchanged(tmp_path_factory: pytest.TempPathFactory, critique: str, revise: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    source = as_file(folder, [{"name": "x", "critique_request": critique, "revision_request": revise}])
    (principle,) = imported(source, folder).principles
    assert (principle.critique, principle.revise) == (critique, revise)


# --- Comparisons --------------------------------------------------------------------------------------------------

NUMBERED = "1. Select the response that is kinder\n2. Choose the answer with fewer errors."


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (json.dumps(NUMBERED), "icai.json"),
        (NUMBERED, "icai.txt"),
        (NUMBERED.splitlines(), "icai.json"),
        ({"principles": NUMBERED.splitlines()}, "icai.json"),
        (dict(enumerate(NUMBERED.splitlines())), "icai.json"),
    ],
)
def test_comparisons_are_kept_and_the_other_forms_follow_by_rule(tmp_path: Path, content: object, name: str) -> None:
    kinder, fewer = imported(as_file(tmp_path, content, name), tmp_path).principles
    assert kinder.compare == "Select the response that is kinder"
    assert kinder.critique == "Say where the answer falls short of being a response that is kinder."
    assert kinder.revise == "Rewrite the answer so that it becomes a response that is kinder."
    assert fewer.compare == "Choose the answer with fewer errors."
    assert fewer.revise == "Rewrite the answer so that it becomes a response with fewer errors."


def test_the_file_says_that_its_requests_were_made_by_rule(tmp_path: Path) -> None:
    text = convert(as_file(tmp_path, NUMBERED, "icai.txt"))
    assert "# `critique` and `revise` were made from its clause by rule: nobody has written or tried them." in text


def test_a_line_that_compares_nothing_among_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="'Be nice' does not say which response to choose"):
        convert(as_file(tmp_path, NUMBERED + "\n3. Be nice", "icai.txt"))


# --- Refusals -----------------------------------------------------------------------------------------------------

RUBRIC = {"version": "1", "category": "rudeness", "scale_descriptions": [{"score_value": "1", "description": "No."}]}
CASES = {"samples": [chat("prompt", "response", "critique request", "critique", "revision request", "revision")]}
OWN = {"name": "x", "principles": [{"id": "a", "critique": "b", "revise": "c"}]}
PROSE = "# What we want\n\nThe model should be good.\n\nOn some days, choose the response that is kind.\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (RUBRIC, "r.json", "is a rubric on 'rudeness': it says how bad an answer is, not how to fix it"),
        (json.dumps(RUBRIC), "r.yaml", "is a rubric on 'rudeness'"),
        (CASES, "c.json", "has worked examples and no principle"),
        (OWN, "o.yaml", "is a cai constitution already"),
        (PROSE, "p.md", "is prose (18 words)"),
        ("", "p.md", "is prose (0 words)"),
        ([], "x.json", "is in no format that import knows"),
        ({"a": 1}, "x.json", "is in no format that import knows"),
        (3, "x.json", "is in no format that import knows"),
        ([1, 2], "x.json", "principle 1: is 1"),
        ("{", "x.json", "x.json:1: is not JSON"),
        ("[" * 100_000, "x.json", "is not JSON that can be read"),
        ("9" * 5000, "x.json", "is not JSON that can be read"),
        ("a: !!python/name:os.system x", "x.yaml", "tag"),
        ("x" * (1 << 20) + "x", "x.json", "is larger than 1 MiB"),
    ],
    ids=range(15),
)
def test_what_holds_no_principles_is_refused_with_the_reason(
    tmp_path: Path, content: object, name: str, reason: str
) -> None:
    with pytest.raises(Mistake) as caught:
        convert(as_file(tmp_path, content, name))
    assert reason in str(caught.value)
    assert caught.value.fix


@pytest.mark.timeout(20)
def test_a_megabyte_of_dots_does_not_stall_the_search_for_a_clause(tmp_path: Path) -> None:
    convert(as_file(tmp_path, "choose the response " + "." * 900_000 + "x", "x.txt"))


def test_bytes_that_are_not_text_are_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"[\n\xff]")
    with pytest.raises(Mistake, match=r"x\.json:2: is not UTF-8"):
        convert(tmp_path / "x.json")


def test_a_file_name_cannot_write_into_the_constitution(tmp_path: Path) -> None:
    source = as_file(tmp_path, LANGCHAIN, "a\nprinciples: []\n#.json")
    assert len(imported(source, tmp_path).principles) == 2


KEYS = ["constitutions", "critic", "revision", "system_chat", "principles", "name", "prompt", "edit_request", "role"]
ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.just("Select the response that is x"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(content=ANYTHING)
def test_any_json_is_imported_or_refused(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    source = as_file(tmp_path_factory.getbasetemp(), json.dumps(content), "any.json")
    try:
        text = convert(source)
    except Mistake:
        return
    assert "\nprinciples:\n" in text


# --- Published files ----------------------------------------------------------------------------------------------


@published
@pytest.mark.parametrize(
    ("name", "count", "cases"),
    [
        ("hf_constitution_anthropic.json", 16, 4),
        ("nemo_CritiqueRevisionInstructions.json", 16, 0),
        ("langchain_principles.json", 54, 0),
        ("icai_060_constitution.json", 5, 0),
    ],
)
def test_published_constitutions_become_principles(tmp_path: Path, name: str, count: int, cases: int) -> None:
    found = imported(SAMPLES / name, tmp_path)
    assert len(found.principles) == count
    assert sum(len(principle.examples) for principle in found.principles) + len(found.examples) == cases
    for principle in found.principles:
        assert not any(label in principle.critique + principle.revise for label in ("Request:", "Critique:", "\n"))


@published
@pytest.mark.parametrize(
    ("pattern", "count", "reason"),
    [
        ("pyrit_*.yaml", 5, "is a rubric"),
        ("nemo_few*.json", 1, "worked examples"),
        ("*.md", 1, "is prose (22,779 words)"),
    ],
)
def test_published_files_without_principles_are_refused(pattern: str, count: int, reason: str) -> None:
    files = list(SAMPLES.glob(pattern))
    assert len(files) == count
    for file in files:
        with pytest.raises(Mistake) as caught:
            convert(file)
        assert reason in str(caught.value)
