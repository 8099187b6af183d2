"""The red team: planted biases are found within the default budget, and what is found can be learned from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planted_audit import BIASES, CLEAN, biased
from process import cai
from test_auditing import pairs_file, tiny_reward  # noqa: F401 (a fixture)

from cai.audit.measure.edits import EDITS
from cai.audit.measure.planted import cases, good
from cai.audit.redteam import reward
from cai.audit.redteam.reward import Search
from cai.core.errors import Mistake
from cai.core.plugin_types import Finding
from cai.data.pairs import Preference, read_pairs

CASES = cases(7, rows=80)
FINDS = {
    "more words": "pad",
    "more characters": "pad",
    "fewer words": "trim",
    "praise": "praise",
    "agreement": "agree",
    "bullets": "bullets",
    "headings": "headings",
    "bold": "bold",
    "repetition": "repeat",
}
"""Bias -> the edit that games it."""


def broken(found: tuple[Finding, ...]) -> set[str]:
    return {one.what.partition(":")[0] for one in found if one.passed is False}


@pytest.mark.parametrize("bias", FINDS)
def test_a_planted_bias_is_found_within_the_default_budget(bias: str) -> None:
    attack = reward.attack(CASES, biased(bias))
    assert attack.broken and attack.scored <= Search().budget
    assert FINDS[bias] in broken(attack.single)
    assert attack.chain and attack.chain[0] in broken(attack.single)
    assert attack.held_out is not None and attack.held_out.passed is False
    assert len(attack.best) > 100


def test_a_reward_of_quality_alone_is_not_broken() -> None:
    attack = reward.attack(CASES, CLEAN)
    assert not attack.broken
    assert attack.held_out is None or attack.held_out.passed


def test_the_same_seed_finds_the_same_and_another_seed_tries_others() -> None:
    first, again = (reward.attack(CASES, biased("praise")) for _ in range(2))
    assert first == again
    other = reward.attack(CASES, biased("praise"), Search(seed=1))
    assert [found.edited for found in other.best] != [found.edited for found in first.best]


def test_a_small_budget_edits_fewer_answers() -> None:
    small = reward.attack(CASES, CLEAN, Search(budget=900))
    assert small.answers < 20 and small.scored <= 900


def test_what_is_found_is_a_pair_whose_rejected_side_is_the_edited_answer() -> None:
    attack = reward.attack(CASES, biased("bold"))
    rows = reward.rows_of(attack.best)
    assert [row["gain"] for row in rows] == sorted((row["gain"] for row in rows), reverse=True)
    for row, found in zip(rows, sorted(attack.best, key=lambda one: -one.gain), strict=True):
        assert "**" in row["rejected"][0]["content"] and row["chosen"][0]["content"] == found.answer
        assert row["prompt"][-1]["role"] == "user" and row["p_chosen"] == 1.0


def test_a_reward_that_tells_nothing_apart_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="same score to all answers"):
        reward.attack(CASES, lambda rows: [1.0] * len(list(rows)))


@pytest.mark.parametrize("name", EDITS)
def test_no_edit_adds_quality(name: str) -> None:
    for case in CASES:
        made = EDITS[name].make(case.answer, case.id)
        assert made is None or good(made) <= good(case.answer)
        assert made is None or made != case.answer


def test_every_bias_has_an_edit_or_is_none_of_edits() -> None:
    assert set(BIASES) - set(FINDS) == {"no throat-clearing", "what the user said", "refusals"}


@pytest.mark.slow
def test_the_command_writes_pairs_that_can_be_learned_from(tmp_path: Path, tiny_reward: Path) -> None:  # noqa: F811
    path = pairs_file(tmp_path / "p.jsonl", [(f"Thing {n}?", f"It is {n}. Or so.", f"Not {n}.") for n in range(12)])
    command = ("redteam", "reward", str(tiny_reward), "--rows", str(path), "--budget", "600", "--chains", "2")
    done = cai(tmp_path, *command, "--out", "found.jsonl")
    assert done.returncode == 0, done.stderr
    rows = list(read_pairs(tmp_path / "found.jsonl"))
    assert rows and all(isinstance(row, Preference) for row in rows)
    assert f"{len(rows)} edited answers get a higher reward" in done.stdout
    said = json.loads(cai(tmp_path, *command, "--json").stdout)
    assert said["scored"] <= 600 and {"single", "chain", "held_out", "chains"} <= said.keys()
