"""The iterated loop on the micro task: rounds build on each other, stop when they should, and are not done twice."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

import micro
import planted_judge
import planted_run
import pytest

from cai.backends.local.reward_model import open_scorer
from cai.core.errors import Mistake
from cai.core.types import Message, Request
from cai.data.training_rows import gather_training_rows
from cai.pipeline import iterate
from cai.pipeline.iterate import IterationRound, Loop, _keep_settings, _mixed, _why, run_iterations
from cai.runs.folder import Run
from cai.runs.iteration import RoundFinding, RoundRedTeam, RoundResult
from cai.runs.manifest import RowCounts
from cai.runs.recipe import Recipe

SIDES = ("chosen", "rejected")

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
            "critic": {"backend": "scripted", "script": "scripts:steady", "scorer": "test_iterate:golden"},
            "sample": {"count": 4, "max_tokens": 20},
            "judge": "logprob",
            "gates": {},
            "export": {"formats": []},
        }
    )


def loop(**changed: Any) -> Loop:
    return iterate.loop({"reward": REWARD, "policy": POLICY, "audit": False, **changed})


def test_options_of_the_trainings_are_checked_before_anything_is_computed() -> None:
    with pytest.raises(Mistake, match="learning_rte"):
        iterate.loop({"policy": {"learning_rte": 1.0}})
    with pytest.raises(Mistake, match="membrs"):
        iterate.loop({"reward": {"membrs": 3}})
    with pytest.raises(Mistake, match="roundz"):
        iterate.loop({"roundz": 3})


def test_a_recipe_that_compares_no_samples_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="compares no samples"):
        run_iterations(recipe.model_copy(update={"sample": None}), loop(), tmp_path / "out")


def test_a_writer_that_cannot_be_trained_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.critic
    with pytest.raises(Mistake, match="cannot be trained"):
        run_iterations(recipe.model_copy(update={"writer": recipe.critic}), loop(), tmp_path / "out")


def pairs_file(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_files_of_pairs_are_read_before_anything_is_computed(tmp_path: Path) -> None:
    good = {"prompt": "Why?", "chosen": "because", "rejected": "never"}
    assert iterate.loop({"pairs": [pairs_file(tmp_path / "good.jsonl", good)]}).pairs
    with pytest.raises(Mistake, match="nowhere"):
        iterate.loop({"pairs": [str(tmp_path / "nowhere.jsonl")]})
    with pytest.raises(Mistake, match="has no pair to train on"):
        iterate.loop({"pairs": [pairs_file(tmp_path / "held.jsonl", {**good, "split": "test"})]})


def test_a_file_of_pairs_that_changed_makes_it_another_loop(recipe: Recipe, tmp_path: Path) -> None:
    row = {"prompt": "Why?", "chosen": "because", "rejected": "never"}
    how = loop(pairs=[pairs_file(tmp_path / "own.jsonl", row)])
    _keep_settings(tmp_path / "out", recipe, how)
    _keep_settings(tmp_path / "out", recipe, how)
    pairs_file(tmp_path / "own.jsonl", row, row)
    with pytest.raises(Mistake, match="another loop"):
        _keep_settings(tmp_path / "out", recipe, how)


def test_a_reward_model_learns_from_all_rounds_from_files_and_from_what_the_red_team_found_before(
    tmp_path: Path,
) -> None:
    turns = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    found = {"id": "7/pad", "prompt": [{"role": "user", "content": "Why?"}], **turns, "p_chosen": 1.0, "gain": 2.0}
    file = pairs_file(
        tmp_path / "own.jsonl",
        {"prompt": "Who?", "chosen": "me", "rejected": "you", "p_chosen": 0.8, "weight": 2.0},
        {"prompt": "Who?", "chosen": "me", "rejected": "them", "split": "test"},
        {"prompt": "Who?", "chosen": "me"},
    )
    first, second = (planted_round(tmp_path / f"round-{number}", number) for number in (1, 2))
    pairs_file(first.folder / "redteam.jsonl", found)
    pairs_file(second.folder / "redteam.jsonl", found)  # of this round: it is for the next
    mixed, counts = _mixed(loop(pairs=[file]), second.folder, [first])
    assert counts == {"old_pairs": 1, "new_pairs": 1, "file_pairs": 1, "redteam_pairs": 1}
    found_rows = gather_training_rows(mixed, "pairs", tokens=lambda row: 1, max_length=9, held_out=0.0)
    assert found_rows.counts() == RowCounts(4, 4, 0)
    old, new, own, red = found_rows.rows
    assert (old["id"].partition(":")[0], new["id"].partition(":")[0]) == ("1", "2")
    assert (own["p_chosen"], own["weight"]) == (0.8, 2.0)
    assert own["id"].startswith("own:")
    assert (red["id"], red["rejected"], red["p_chosen"]) == ("1:redteam:7/pad", turns["rejected"], 1.0)


def planted_round(folder: Path, number: int) -> IterationRound:
    """A round that has compared two answers, and done nothing else."""
    asked = planted_run.prompt("asked", f"Which is {number}?")
    planted_run.plant(folder / "labels", pairs=[planted_run.pair(asked, f"this {number}", f"that {number}")])
    return IterationRound(number, folder, RoundResult(number, "start"))


def gained(model: Path, rows: list[dict[str, Any]]) -> float:
    """What a reward model pays for the edits, mean of the rows."""
    scorer = open_scorer(model, batch_size=64, device="cpu")
    texts = {
        side: [((Message("user", r["prompt"][0]["content"]),), r[side][0]["content"]) for r in rows] for side in SIDES
    }
    return fmean(scorer.scores(texts["rejected"])) - fmean(scorer.scores(texts["chosen"]))


def roomy(start: Path) -> Path:
    """The micro model with room for what the red team adds; its places turn, and are not learned."""
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return start


@pytest.mark.slow
def test_what_the_red_team_finds_is_kept_and_learned_from_in_the_next_round(recipe: Recipe, tmp_path: Path) -> None:
    roomy(micro.start(tmp_path / "start"))
    brief = {**POLICY, "max_steps": 2}
    how = loop(redteam=True, policy=brief, reward={**REWARD, "max_length": 200}, max_kl=None)
    first, second = run_iterations(recipe, how, tmp_path / "out")
    kept = [json.loads(line) for line in (first.folder / "redteam.jsonl").read_text().splitlines()]
    assert len(kept) == first.result.redteam.rows == second.result.redteam_pairs > 0
    assert first.result.redteam_pairs == 0
    assert first.result.redteam.scored > first.result.redteam.answers > 0
    asked = {pair.prompt.messages[0].content: pair for pair in Run(first.folder / "labels").pairs()}
    assert {row["prompt"][0]["content"] for row in kept} <= set(asked)
    learned = [json.loads(line) for line in (second.folder / "pairs.jsonl").read_text().splitlines()]
    rejected = [row["rejected"] for row in learned if row["id"].startswith("1:redteam:")]
    assert rejected == [row["rejected"] for row in kept]
    gains = [gained(one.folder / "reward" / "model", kept) for one in (first, second)]
    assert gains[0] > 0 > gains[1], gains


@pytest.mark.slow
def test_a_reward_model_with_no_room_for_edits_is_not_red_teamed_and_the_round_says_so(
    recipe: Recipe, tmp_path: Path
) -> None:
    micro.start(tmp_path / "start")
    how = loop(redteam=True, rounds=1, policy={**POLICY, "max_steps": 1}, reward={**REWARD, "epochs": 1}, max_kl=None)
    (only,) = run_iterations(recipe, how, tmp_path / "out")
    assert only.result.redteam is not None and only.result.redteam.rows == 0
    assert "no row that fits the reward model's context" in only.result.redteam.note
    assert not (only.folder / "redteam.jsonl").exists()


@pytest.mark.slow
def test_two_rounds_raise_gold_and_the_second_learns_from_the_firsts_answers_too(
    recipe: Recipe, tmp_path: Path
) -> None:
    start = micro.start(tmp_path / "start")
    out = tmp_path / "out"
    rounds = run_iterations(recipe, loop(), out)
    assert [one.stopped for one in rounds] == ["", ""]
    golds = [
        fmean(micro.gold(a) for _, a in micro.answers(folder))
        for folder in (start, *(out / f"round-{n}/policy/model" for n in (1, 2)))
    ]
    assert golds[0] + 0.1 < golds[1]
    assert golds[0] + 0.25 < golds[2], golds
    first, second = (one.result for one in rounds)
    assert first.old_pairs == 0
    assert second.old_pairs == first.new_pairs > 50
    assert second.sampled_from == str(out / "round-1" / "policy" / "model")
    before = (
        (out / "round-2" / "round.json").stat().st_mtime_ns,
        (out / "round-1" / "policy" / "figures.json").stat().st_mtime_ns,
    )
    again = run_iterations(recipe, loop(), out)
    assert [one.result for one in again] == [one.result for one in rounds]
    after = (
        (out / "round-2" / "round.json").stat().st_mtime_ns,
        (out / "round-1" / "policy" / "figures.json").stat().st_mtime_ns,
    )
    assert after == before
    with pytest.raises(Mistake, match="another loop"):
        run_iterations(recipe, loop(max_kl=3.0), out)


@pytest.mark.slow
def test_it_stops_after_a_round_that_went_too_far(recipe: Recipe, tmp_path: Path) -> None:
    micro.start(tmp_path / "start")
    (only,) = run_iterations(recipe, loop(rounds=3, max_kl=0.01), tmp_path / "out")
    assert only.stopped.startswith("kl ")
    assert not (tmp_path / "out" / "round-2").exists()


@pytest.mark.slow
def test_a_major_finding_of_the_audit_stops_it(recipe: Recipe, tmp_path: Path) -> None:
    micro.start(tmp_path / "start")
    brief = {**POLICY, "max_steps": 2}
    probes = {"length": {}, "repetition": {}}
    (only,) = run_iterations(
        recipe.model_copy(update={"audit": probes}),
        loop(audit=True, rounds=1, policy=brief, audited=10),
        tmp_path / "out",
    )
    kept = json.loads((tmp_path / "out" / "round-1" / "findings.json").read_text())
    assert {one["probe"] for one in kept["audits"][0]["findings"]} <= set(probes)
    majors = [one for one in only.result.findings if one.severity == "major"]
    assert bool(only.stopped) == bool(majors)


def test_what_the_first_model_did_as_much_stops_no_loop() -> None:
    shared, new = (RoundFinding("sycophancy", "wrong answers", 0.5, "major", inherited) for inherited in (True, False))
    assert not _why(loop(), {}, [shared])
    assert "sycophancy" in _why(loop(), {}, [shared, new])


def test_a_round_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    earlier = {
        "round": 1, "sampled_from": "base", "labels": {"read": {"in": 3, "out": 2, "failed": 1}}, "old_pairs": 0,
        "new_pairs": 2, "file_pairs": 0, "redteam_pairs": 0, "reward": {"steps": 1}, "policy": {"kl": 0.5},
        "redteam": {"rows": 0, "note": "no room"}, "findings": [], "stopped": "",
    }  # fmt: skip
    (tmp_path / "round.json").write_text(json.dumps(earlier))
    found = RoundResult.read(tmp_path)
    assert found is not None and found.labels["read"].entered == 3 and found.redteam == RoundRedTeam(0, "no room")
    assert found.as_json() | {"redteam": earlier["redteam"]} == earlier
    (tmp_path / "round.json").write_text("{")
    with pytest.raises(Mistake, match="round.json"):
        RoundResult.read(tmp_path)
