"""Recipes: strict, with the line and a suggestion; overrides as on the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cai.core.config import MAX_BYTES, parse_yaml
from cai.core.errors import Mistake
from cai.pipeline.generate import write_recipe
from cai.runs import recipe

GOOD = """\
constitution: concise
prompts: everyday
writer: {backend: scripted, script: x:y}
templates: small
"""


def load(tmp_path: Path, text: str, *overrides: str) -> recipe.Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return recipe.load_recipe(path, overrides)


def test_four_keys_are_enough(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.prompts.path == "everyday"
    assert loaded.templates == {"draft": "small", "critique": "small", "revise": "small"}
    assert loaded.critique.rounds == 4


@pytest.mark.parametrize(
    ("line", "where", "why"),
    [
        ("critique: {rouds: 2}", "r.yaml:5", "did you mean 'rounds'"),
        ("critique:\n  rounds: many", "r.yaml:6", "valid integer"),
        ("critique: {rounds: 0}", "r.yaml:5", "greater than or equal to 1"),
        ("draft: {temperature: .nan}", "r.yaml:5", "finite"),
        ("sead: 3", "r.yaml:5", "did you mean 'seed'"),
        ("export: {formats: [trll]}", "r.yaml:5", "did you mean 'trl'"),
        ("gates: {refusal: repair}", "r.yaml:5", "cannot be repaired"),
        ("gates: {refusal: destroy}", "r.yaml:5", "drop"),
        ("templates2: {draft: small}", "r.yaml:5", "did you mean 'templates'"),
        ("seed: 1\nseed: 2", "r.yaml:6", "duplicate key"),
        ("a: &x [1]\nb: *x", "r.yaml:5", "anchor or alias"),
        ("a: !!python/object/apply:os.system ['id']", "r.yaml:5", "YAML tag"),
        ("a: b: c", "r.yaml:5", "is not YAML"),
    ],
)
def test_a_mistake_is_named_by_line_with_what_to_do(tmp_path: Path, line: str, where: str, why: str) -> None:
    with pytest.raises(Mistake) as caught:
        load(tmp_path, GOOD + line + "\n")
    assert where in str(caught.value)
    assert why in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="'writer' is missing"):
        load(tmp_path, GOOD.replace("writer", "seed2"))


def test_overrides_set_what_the_file_would(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, GOOD, "critique.rounds=2", "prompts.limit=3", "writer.script=a:b", "templates.critique=large"
    )
    assert loaded.critique.rounds == 2
    assert (loaded.prompts.path, loaded.prompts.limit) == ("everyday", 3)
    assert loaded.writer.options == {"script": "a:b"}
    assert loaded.templates["critique"] == "large"
    assert loaded.templates["draft"] == "small"


@pytest.mark.parametrize("override", ["critique.rounds", "critique.rouds=3", "=3"])
def test_a_bad_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(Mistake):
        load(tmp_path, GOOD, override)


def test_a_bomb_is_refused_before_it_is_built(tmp_path: Path) -> None:
    lol = "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
    for text in (lol, "a: " + "[" * 5000, "a: x\n" * 300_000):
        with pytest.raises(Mistake):
            parse_yaml(text, "bomb.yaml") if len(text) < MAX_BYTES else load(tmp_path, text)


def test_the_resolved_copy_is_a_recipe_that_means_the_same(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD, "critique.rounds=3")
    write_recipe(loaded, tmp_path / "copy.yaml")
    assert recipe.load_recipe(tmp_path / "copy.yaml") == loaded


@pytest.mark.parametrize("name", ["demo", "default"])
def test_shipped_recipes_are_in_order(name: str) -> None:
    assert recipe.load_recipe(name)


def test_an_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(Mistake, match="default, demo"):
        recipe.load_recipe("demmo")
