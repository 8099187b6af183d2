"""The iterated loop on the micro task: rounds build on each other, stop when they should, and are not done twice."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

import micro
import planted_judge
import pytest

from cai import iterating
from cai.errors import Mistake
from cai.recipe import Recipe
from cai.types import Request

REWARD = {
    "r": 0,
    "device": "cpu",
    "batch_size": 32,
    "learning_rate": 1e-3,
    "epochs": 6,
    "length": "none",
    "max_length": 60,
}
POLICY = {
    "r": 0,
    "device": "cpu",
    "batch_size": 32,
    "learning_rate": 1e-3,
    "max_steps": 25,
    "max_new_tokens": 20,
    "max_length": 60,
}


def golden(request: Request, option: str) -> float:
    """A judge that prefers what gold prefers, mildly."""
    first, second = (micro.gold(answer) for answer in planted_judge.answers(request))
    p = 1 / (1 + exp(-4 * (first - second)))
    return log(p if option.strip() == "(A)" else 1 - p)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in micro.asked("train")))
    return Recipe.model_validate(
        {
            "constitution": "default",
            "prompts": str(prompts),
            "templates": "small",
            "writer": {"backend": "transformers", "model": str(tmp_path / "start"), "device": "cpu"},
            "critic": {"backend": "scripted", "script": "scripts:steady", "scorer": "test_iterating:golden"},
            "sample": {"count": 4, "max_tokens": 20},
            "judge": "logprob",
            "gates": {},
            "export": {"formats": []},
        }
    )


def loop(**changed: Any) -> iterating.Loop:
    return iterating.loop({"reward": REWARD, "policy": POLICY, "audit": False, **changed})


def test_options_of_the_trainings_are_checked_before_anything_is_computed() -> None:
    with pytest.raises(Mistake, match="learning_rte"):
        iterating.loop({"policy": {"learning_rte": 1.0}})
    with pytest.raises(Mistake, match="membrs"):
        iterating.loop({"reward": {"membrs": 3}})
    with pytest.raises(Mistake, match="roundz"):
        iterating.loop({"roundz": 3})


def test_a_recipe_that_compares_no_samples_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="compares no samples"):
        iterating.iterate(recipe.model_copy(update={"sample": None}), loop(), tmp_path / "out")


def test_a_writer_that_cannot_be_trained_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.critic
    with pytest.raises(Mistake, match="cannot be trained"):
        iterating.iterate(recipe.model_copy(update={"writer": recipe.critic}), loop(), tmp_path / "out")


@pytest.mark.slow
def test_two_rounds_raise_gold_and_the_second_learns_from_the_firsts_answers_too(
    recipe: Recipe, tmp_path: Path
) -> None:
    start = micro.start(tmp_path / "start")
    out = tmp_path / "out"
    rounds = iterating.iterate(recipe, loop(), out)
    assert [one.stopped for one in rounds] == ["", ""]
    golds = [
        fmean(micro.gold(a) for _, a in micro.answers(folder))
        for folder in (start, *(out / f"round-{n}/policy/model" for n in (1, 2)))
    ]
    assert golds[0] + 0.1 < golds[1]
    assert golds[0] + 0.25 < golds[2], golds
    first, second = (one.told for one in rounds)
    assert first["old_pairs"] == 0
    assert second["old_pairs"] == first["new_pairs"] > 50
    assert second["sampled_from"] == str(out / "round-1" / "policy" / "model")
    before = (
        (out / "round-2" / "round.json").stat().st_mtime_ns,
        (out / "round-1" / "policy" / "figures.json").stat().st_mtime_ns,
    )
    again = iterating.iterate(recipe, loop(), out)
    assert [one.told for one in again] == [one.told for one in rounds]
    after = (
        (out / "round-2" / "round.json").stat().st_mtime_ns,
        (out / "round-1" / "policy" / "figures.json").stat().st_mtime_ns,
    )
    assert after == before
    with pytest.raises(Mistake, match="another loop"):
        iterating.iterate(recipe, loop(max_kl=3.0), out)


@pytest.mark.slow
def test_it_stops_after_a_round_that_went_too_far(recipe: Recipe, tmp_path: Path) -> None:
    micro.start(tmp_path / "start")
    (only,) = iterating.iterate(recipe, loop(rounds=3, max_kl=0.01), tmp_path / "out")
    assert only.stopped.startswith("kl ")
    assert not (tmp_path / "out" / "round-2").exists()


@pytest.mark.slow
def test_a_major_finding_of_the_audit_stops_it(recipe: Recipe, tmp_path: Path) -> None:
    micro.start(tmp_path / "start")
    brief = {**POLICY, "max_steps": 2}
    probes = {"length": {}, "repetition": {}}
    (only,) = iterating.iterate(
        recipe.model_copy(update={"audit": probes}),
        loop(audit=True, rounds=1, policy=brief, audited=10),
        tmp_path / "out",
    )
    kept = json.loads((tmp_path / "out" / "round-1" / "findings.json").read_text())
    assert {one["probe"] for one in kept["audits"][0]["findings"]} <= set(probes)
    majors = [one for one in only.told["findings"] if one["severity"] == "major"]
    assert bool(only.stopped) == bool(majors)
