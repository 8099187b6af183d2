"""Reinforcement on the micro task: what a reward is, RLOO and GRPO by their formulas, and what flawed rewards lead to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import micro
import numpy as np
import planted_judge
import pytest
from pydantic import ValidationError
from test_ppo import UNEVEN, apart, job

from cai.core import plugins
from cai.core.errors import Mistake, Permanent
from cai.core.plugin_types import Job, Method
from cai.core.types import Request
from cai.train.rl.rewards import Rewards, RewardSource

BASE = {"r": 0, "device": "cpu", "batch_size": 32, "max_new_tokens": micro.LONGEST, "kl_horizon": 1000}
QUICK: dict[str, dict[str, Any]] = {
    "ppo": {"learning_rate": 1e-3},
    "rloo": {"learning_rate": 2e-3},
    "grpo": {"learning_rate": 2e-3, "answers": 4, "kl_coef": 0.1},
}
"""What each method learns well with on the micro task."""


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro.start(tmp_path_factory.mktemp("micro") / "start")


def trained(name: str, given: Job, **changed: Any) -> dict[str, Any]:
    method = plugins.find_plugin("train", name, Method)
    options = method.options(**({"rewards": "micro:gold_reward"} | BASE | QUICK[name] | changed))
    return dict(method.train(given, options))


def worth(folder: Path) -> float:
    """Mean gold reward on prompts that were never trained on."""
    return fmean(micro.gold(answer) for _, answer in micro.answers(folder, "test"))


# --- Rewards, without torch -------------------------------------------------------------------------------------------

ROWS = micro.prompts()[:4]
ANSWERS = ["calm brave", "stone", "cruel", "wonderful"]


def rewards(*sources: Any, combine: Any = "sum") -> Rewards:
    return Rewards([RewardSource.model_validate(one) for one in sources], combine, job(Path(), Path()))


def picky(prompts: Any, answers: Sequence[str], rows: Any) -> list[Any]:
    return [None if "stone" in answer else float("nan") if "cruel" in answer else 2 for answer in answers]


def raising(prompts: Any, answers: Any, rows: Any) -> list[float]:
    raise KeyError("colour")


def mute(prompts: Any, answers: Sequence[str], rows: Any) -> list[None]:
    return [None] * len(answers)


def short(prompts: Any, answers: Any, rows: Any) -> list[float]:
    return [1.0]


def wordy(prompts: Any, answers: Sequence[str], rows: Any) -> list[str]:
    return ["good"] * len(answers)


def spied(prompts: Any, answers: Any, rows: Any) -> list[float]:
    assert prompts == [row["prompt"] for row in ROWS]
    assert list(answers) == ANSWERS
    assert list(rows) == ROWS
    return [1.0, 2.0, 3.0, 4.0]


def test_a_function_is_given_prompts_answers_and_rows() -> None:
    assert rewards("test_rl:spied").of(ROWS, ANSWERS).scores == [1.0, 2.0, 3.0, 4.0]


def test_none_and_nan_are_no_numbers_and_are_counted() -> None:
    found = rewards("test_rl:picky").of(ROWS, ANSWERS)
    assert found.scores == [2.0, None, None, 2.0]
    assert found.failed == 2


def test_one_source_that_cannot_say_leaves_the_answer_out_of_the_sum_of_several() -> None:
    for combine in ("sum", "min"):
        found = rewards("micro:gold_reward", "test_rl:picky", combine=combine).of(ROWS, ANSWERS)
        assert [score is None for score in found.scores] == [False, True, True, False]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("raising", "raised KeyError: 'colour'"),
        ("mute", "none of 4 answers"),
        ("short", "returned 1 rewards for 4 answers"),
        ("wordy", "returned 'good'"),
        ("ROWS", "is not a function"),
        ("missing", "missing"),
    ],
)
def test_a_function_that_is_wrong_stops_with_one_line(name: str, what: str) -> None:
    with pytest.raises(Mistake, match=what) as stopped:
        rewards(f"test_rl:{name}").of(ROWS, ANSWERS)
    assert "\n" not in str(stopped.value)


def test_several_rewards_are_a_weighted_sum_or_the_least() -> None:
    both: list[Any] = [{"function": "micro:flawed_0", "weight": 2.0}, "micro:flawed_1"]
    assert rewards(*both).of(ROWS, ANSWERS).scores == [3.0, 0.0, -3.0, 2 * 2.0 - 1.0]
    assert rewards(*both, combine="min").of(ROWS, ANSWERS).scores == [1.0, 0.0, -2.0, -1.0]


def test_disagreement_is_the_spread_of_those_who_are_compared() -> None:
    both = ["micro:flawed_0", "micro:flawed_1"]
    assert rewards(*both, combine="min").of(ROWS, ANSWERS).disagreement == pytest.approx((0 + 0 + 0 + 1.5) / 4)
    assert rewards(*both).of(ROWS, ANSWERS).disagreement is None


@pytest.mark.parametrize("data", [{}, {"model": "a", "function": "b:c"}, {"modl": "a"}])
def test_a_source_is_one_thing(data: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        RewardSource.model_validate(data)


def test_a_bare_name_is_a_function_or_a_folder(tmp_path: Path) -> None:
    assert RewardSource.model_validate("micro:gold_reward").function == "micro:gold_reward"
    assert RewardSource.model_validate(str(tmp_path)).model == str(tmp_path)
    with pytest.raises(Mistake, match="no such folder"):
        rewards(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_groups_are_whole(method: str) -> None:
    options = plugins.find_plugin("train", method, Method).options
    with pytest.raises(ValidationError, match="must divide"):
        options(rewards="micro:gold_reward", batch_size=6, accumulate=1, answers=4)


def test_trl_is_told_what_we_are_told() -> None:
    method = plugins.find_plugin("train", "grpo", Method)
    assert method.trl
    said = method.trl(method.options(rewards="micro:gold_reward", kl_coef=0.2, answers=4, max_new_tokens=7))
    assert said["beta"] == 0.2
    assert (said["num_generations"], said["max_completion_length"], said["shuffle_dataset"]) == (4, 7, False)


def scores(request: Request, option: str) -> float:
    """A judge that finds an answer good by its quality, and has no log-probabilities for one that says `broken`."""
    if "broken" in planted_judge.answers(request)[-1]:
        raise Permanent("filter", "refused")
    return planted_judge.biased(request, option)


def test_a_judge_is_a_reward_and_its_failures_are_left_out(tmp_path: Path) -> None:
    judge = {"backend": "scripted", "script": "scripts:steady", "scorer": "test_rl:scores"}
    given = Job(Path(), [], [], tmp_path, 0, False, lambda told: None)
    asked = ["quality 1", "quality 9", "broken", "quality 5"]
    for _ in range(2):  # the second time from the journal
        open = Rewards([RewardSource.model_validate({"judge": judge})], "sum", given)
        found = open.of(ROWS, asked)
        open.close()
        low, high, lost, middle = found.scores
        assert lost is None
        assert low is not None and high is not None and middle is not None
        assert -1 <= low < middle < high <= 1
    assert (tmp_path / "journal.sqlite").is_file()


# --- RLOO and GRPO ----------------------------------------------------------------------------------------------------


def partly(prompts: Any, answers: Sequence[str], rows: Any) -> list[float | None]:
    """Gold, and nothing for every fifth answer."""
    return [None if place % 5 == 0 else micro.gold(answer) for place, answer in enumerate(answers)]


def expected_rloo(rewards: np.ndarray) -> np.ndarray:
    """Each reward minus the mean of the others in its group; 0 where there is none (arXiv 2402.14740, equation 8)."""
    found = np.zeros_like(rewards)
    for group in range(0, len(rewards), 4):
        for place in range(group, group + 4):
            others = [rewards[n] for n in range(group, group + 4) if n != place and np.isfinite(rewards[n])]
            found[place] = rewards[place] - np.mean(others) if np.isfinite(rewards[place]) else 0.0
    return found


def expected_grpo(rewards: np.ndarray) -> np.ndarray:
    """Each reward minus its group's mean over the group's deviation; 0 where there is none (arXiv 2402.03300, 4.1.2)."""
    found = np.zeros_like(rewards)
    for group in range(0, len(rewards), 4):
        known = rewards[group : group + 4]
        white = (known - np.nanmean(known)) / (np.nanstd(known, ddof=1) + 1e-4)
        found[group : group + 4] = np.nan_to_num(white)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["micro:gold_reward", "test_rl:partly"])
@pytest.mark.parametrize(("method", "formula"), [("rloo", expected_rloo), ("grpo", expected_grpo)])
def test_advantages_agree_with_their_formula(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, formula: Callable[..., Any], reward: str
) -> None:
    import trl

    trainer = {"rloo": trl.RLOOTrainer, "grpo": trl.GRPOTrainer}[method]
    whole, calculate, seen = trainer._generate_and_score_completions, trainer._calculate_rewards, []

    def rewarded(self: Any, *args: Any) -> Any:
        seen.append([calculate(self, *args), None])
        return seen[-1][0]

    def generated(self: Any, *args: Any) -> Any:
        made = whole(self, *args)
        seen[-1][1] = made["advantages"]
        return made

    monkeypatch.setattr(trainer, "_calculate_rewards", rewarded)
    monkeypatch.setattr(trainer, "_generate_and_score_completions", generated)
    figures = trained(method, job(start, tmp_path), rewards=reward, max_steps=2, kl_coef=0.0, answers=4)
    assert len(seen) == 2
    for given, advantages in seen:
        np.testing.assert_allclose(advantages.numpy(), formula(given[:, 0].double().numpy()), atol=1e-5)
    assert figures["unrewarded"] == (0 if reward.startswith("micro") else 2 * 7)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_resumed_equals_uninterrupted_to_the_bit_and_past_an_epoch(start: Path, tmp_path: Path, method: str) -> None:
    told: dict[str, list[Any]] = {"whole": [], "cut": []}
    chosen = {"kl_horizon": 60, "batch_size": 16, "answers": 4}
    rows = UNEVEN[:8]  # 4 of them a step: every other step begins an epoch
    trained(method, job(start, tmp_path / "whole", rows=rows, log=told["whole"].append), max_steps=6, **chosen)
    cut = job(start, tmp_path / "cut", rows=rows, log=told["cut"].append)
    trained(method, cut, max_steps=3, save_every=3, **chosen)
    resumed = job(start, tmp_path / "cut", rows=rows, log=told["cut"].append, resume=True)
    trained(method, resumed, max_steps=6, **chosen)
    assert apart(tmp_path / "whole", tmp_path / "cut") == 0.0
    prices = [[one["kl_coef"] for one in told[name] if "kl_coef" in one] for name in ("whole", "cut")]
    assert prices[0] == prices[1]
    assert len(set(prices[0])) == 6  # it moves at every step


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_four_batches_of_two_groups_are_the_step_of_one_batch(start: Path, tmp_path: Path, method: str) -> None:
    for name, size, accumulate in (("small", 8, 4), ("big", 32, 1)):
        trained(method, job(start, tmp_path / name), max_steps=3, batch_size=size, accumulate=accumulate, answers=4)
    assert apart(tmp_path / "small", tmp_path / "big") < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_lora_is_compared_with_the_model_without_it(start: Path, tmp_path: Path, method: str) -> None:
    told: list[Any] = []
    figures = trained(method, job(start, tmp_path, log=told.append), max_steps=4, r=4, learning_rate=1e-2)
    steps = [one for one in told if "kl" in one]
    assert abs(steps[0]["kl"]) < 1e-4 < abs(steps[-1]["kl"])
    assert figures["steps"] == 4
    assert abs(micro.kl(tmp_path / "model", start, micro.answers(tmp_path / "model"))) > 1e-4  # it is what was saved
    assert steps[-1]["sample"].split()


# --- What training leads to -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
def test_sixty_steps_raise_the_gold_reward_on_every_seed_and_stay_near(
    start: Path, tmp_path: Path, method: str
) -> None:
    before = worth(start)
    assert abs(before) < 0.1
    for seed in range(5):
        out = tmp_path / str(seed)
        trained(method, job(start, out, seed=seed), max_steps=60)
        answers = micro.answers(out / "model", "test")
        assert fmean(micro.gold(answer) for _, answer in answers) > 0.6, f"seed {seed}"
        assert 1 < micro.kl(out / "model", start, answers) < 9, f"seed {seed}"
        shutil.rmtree(out)


@pytest.mark.slow
def test_a_flawed_reward_is_gamed_and_kl_or_the_worst_case_of_several_hold_it(start: Path, tmp_path: Path) -> None:
    free: dict[str, Any] = {"kl_coef": 0.0, "kl_target": None}
    ways = {
        "gamed": {"rewards": "micro:flawed_0"} | free,
        "kl": {"rewards": "micro:flawed_0", "kl_coef": 0.2, "kl_target": 4.0, "kl_horizon": 100},
        "worst": {"rewards": ["micro:flawed_0", "micro:flawed_1", "micro:flawed_2"], "combine": "min"} | free,
    }
    golds: dict[str, list[float]] = {}
    for name, changed in ways.items():
        for seed in range(3):
            trained("ppo", job(start, tmp_path / name, seed=seed), max_steps=80, **changed)
            golds.setdefault(name, []).append(worth(tmp_path / name / "model"))
    before = worth(start)
    assert max(golds["gamed"]) < before - 0.3  # the proxy is loved, and what it stood for is gone
    assert min(golds["kl"]) > max(golds["gamed"]) + 0.3
    assert min(golds["worst"]) > max(golds["gamed"]) + 0.3


@pytest.mark.slow
def test_the_flawed_reward_agrees_with_gold_until_it_is_sought(start: Path) -> None:
    answers = [answer for _, answer in micro.answers(start, "train", each=20)]
    both = [micro.gold(answer) for answer in answers], micro.flawed_0([], answers, [])
    assert np.corrcoef(*both)[0, 1] > 0.9


@pytest.mark.slow
def test_an_ensemble_of_reward_models_teaches_and_its_disagreement_is_told(start: Path, tmp_path: Path) -> None:
    method = plugins.find_plugin("train", "reward", Method)
    pairs = micro.pairs(400, seed=1)
    model = {"max_steps": 60, "batch_size": 32, "learning_rate": 1e-2, "device": "cpu", "length": "none"}
    method.train(job(start, tmp_path / "judge", rows=pairs), method.options(members=2, r=8, **model))
    told: list[Any] = []
    reward = {"model": str(tmp_path / "judge"), "members": "min"}
    trained("ppo", job(start, tmp_path / "ppo", log=told.append), rewards=reward, max_steps=30)
    assert all(one["disagreement"] > 0 for one in told)
    assert worth(tmp_path / "ppo" / "model") > worth(start) + 0.2
