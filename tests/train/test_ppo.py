"""PPO: its formulas against numpy in float64, and on the micro task what must be the same is the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import micro
import numpy as np
import pytest

from cai.core.errors import Mistake
from cai.core.plugin_types import Job
from cai.train.ppo import METHOD
from cai.train.rl.adaptive_kl import AdaptiveKL
from cai.train.rl.options import PromptRows
from cai.train.rl.ppo_options import Options

ROWS = micro.prompts()
BASE = {
    "r": 0,
    "device": "cpu",
    "learning_rate": 1e-3,
    "batch_size": 8,
    "rollouts": 16,
    "max_new_tokens": 12,
    "passes": 2,
}


def options(**changed: Any) -> Options:
    return Options(**({"rewards": ["micro:gold_reward"]} | BASE | changed))


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro.start(tmp_path_factory.mktemp("micro") / "start")


def job(start: Path, out: Path, *, rows: Any = ROWS, seed: int = 0, resume: bool = False, log: Any = None) -> Job:
    return Job(start, rows, [], out, seed, resume, log or (lambda told: None))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def apart(one: Path, other: Path) -> float:
    """The largest difference between two trained models."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


# --- The coefficient, without torch -----------------------------------------------------------------------------------


def test_the_coefficient_grows_beyond_the_target_and_falls_before_it() -> None:
    far, near = AdaptiveKL(0.1, 6.0, 100), AdaptiveKL(0.1, 6.0, 100)
    far.update(60.0, 50)
    near.update(5.4, 50)
    assert far.coefficient == pytest.approx(0.1 * (1 + 0.2 * 50 / 100))  # the error is clipped at 0.2
    assert near.coefficient == pytest.approx(0.1 * (1 - 0.1 * 50 / 100))


def test_without_a_target_the_coefficient_stays() -> None:
    fixed = AdaptiveKL(0.1, None, 100)
    fixed.update(60.0, 50)
    assert fixed.coefficient == 0.1


def test_a_kl_that_is_no_number_stops_the_training() -> None:
    with pytest.raises(Mistake, match="not a number"):
        AdaptiveKL(0.1, 6.0, 100).update(float("nan"), 8)


def test_every_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    asked = PromptRows(ROWS, [[]] * len(ROWS))
    count = len(ROWS)
    one, two = asked.order(0, 0), asked.order(0, 1)
    assert one != two != sorted(two)
    assert sorted(one) == sorted(two) == list(range(count))
    assert asked.indices(0, 0, 2 * count) == one + two
    assert asked.indices(0, count - 3, 5) == one[-3:] + two[:2]
    turned = PromptRows(ROWS[::-1], [[]] * count)
    assert [turned.rows[place] for place in turned.order(0, 0)] == [ROWS[place] for place in one]


def test_rows_of_one_name_are_told_apart() -> None:
    twins = PromptRows([{**row, "id": "same"} for row in ROWS], [[]] * len(ROWS))
    assert sorted(twins.order(0, 0)) == list(range(len(ROWS)))
    assert twins.order(0, 0) != list(range(len(ROWS)))


# --- Formulas ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Five answers of up to nine tokens, in float64."""
    chance = np.random.default_rng(0)
    lengths = np.array([9, 1, 4, 7, 2])
    made = {
        name: chance.normal(size=(5, 9)) for name in ("now", "old", "start", "values", "old_values", "returns", "x")
    }
    return made | {"mask": (np.arange(9) < lengths[:, None]).astype(float), "scores": chance.normal(size=5)}


def tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {name: torch.tensor(value) for name, value in batch.items()}


@pytest.mark.slow
@pytest.mark.parametrize("centre", [True, False])
def test_whitening_agrees_with_numpy(batch: dict[str, np.ndarray], centre: bool) -> None:
    from cai.train.rl.ppo_losses import whitened

    real = batch["x"][batch["mask"] == 1]
    white = (real - real.mean()) / np.sqrt(real.var() + 1e-8) + (0 if centre else real.mean())
    t = tensors(batch)
    found = whitened(t["x"], t["mask"], centre=centre).numpy()
    np.testing.assert_allclose(found[batch["mask"] == 1], white, atol=1e-12)
    assert (found[batch["mask"] == 0] == 0).all()


@pytest.mark.slow
def test_rewards_are_the_price_of_each_token_and_the_score_at_the_last(batch: dict[str, np.ndarray]) -> None:
    from cai.train.rl.ppo_losses import token_rewards

    expected = -0.3 * (batch["now"] - batch["start"]) * batch["mask"]
    for row, length in enumerate(batch["mask"].sum(1).astype(int)):
        expected[row, length - 1] += batch["scores"][row]
    t = tensors(batch)
    found = token_rewards(t["scores"], t["now"] - t["start"], t["mask"], 0.3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "decay"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_agree_with_their_definition(batch: dict[str, np.ndarray], gamma: float, decay: float) -> None:
    from cai.train.rl.ppo_losses import advantages

    expected = np.zeros((5, 9))
    for row, length in enumerate(batch["mask"].sum(1).astype(int)):
        v, r = [*batch["values"][row, :length], 0.0], batch["x"][row, :length]
        surprise = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected[row, t] = sum((gamma * decay) ** n * one for n, one in enumerate(surprise[t:]))
    t = tensors(batch)
    found, returns = advantages(t["x"] * t["mask"], t["values"], t["mask"], gamma=gamma, decay=decay)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(returns.numpy(), expected + batch["values"] * batch["mask"], atol=1e-12)


@pytest.mark.slow
def test_losses_agree_with_numpy(batch: dict[str, np.ndarray]) -> None:
    from cai.train.rl.ppo_losses import ppo_losses

    b, real = batch, batch["mask"] == 1
    ratio, pull = np.exp(b["now"] - b["old"]), b["x"]
    policy = -np.minimum(ratio * pull, np.clip(ratio, 0.8, 1.2) * pull)
    near = b["old_values"] + np.clip(b["values"] - b["old_values"], -0.2, 0.2)
    value = 0.5 * np.maximum((b["values"] - b["returns"]) ** 2, (near - b["returns"]) ** 2)
    t = tensors(batch)
    found = ppo_losses(t["now"], t["old"], t["x"], t["mask"], 0.2, t["values"], t["old_values"], t["returns"], 0.2)
    assert float(found.policy) == pytest.approx(policy[real].sum(), abs=1e-9)
    assert float(found.value) == pytest.approx(value[real].sum(), abs=1e-9)
    beyond = ((ratio > 1.2) & (pull > 0)) | ((ratio < 0.8) & (pull < 0))
    assert float(found.clipped) == beyond[real].sum()
    assert float(found.approx_kl) == pytest.approx((ratio - 1 - np.log(ratio))[real].sum(), abs=1e-9)


# --- The policy -------------------------------------------------------------------------------------------------------

UNEVEN = [
    {"id": str(number), "prompt": micro.turn("user", text)}
    for number, text in enumerate(["tell", "describe sea now here there", "what moon", "explain fire here now"] * 4)
]
"""Prompts of different lengths, so that batches are padded on the left."""


def learner(start: Path, out: Path, **changed: Any) -> Any:
    import torch

    from cai.train.rl.ppo_loop import Learner

    torch.manual_seed(0)
    return Learner(job(start, out, rows=changed.pop("rows", UNEVEN)), options(**changed))


def rewards(names: list[str]) -> Any:
    from cai.train.rl.rewards import Rewards, RewardSource

    return Rewards([RewardSource.model_validate(name) for name in names], "sum", job(Path(), Path()))


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{}, {"r": 4}, {"temperature": 0.7}, {"batch_size": 3}], ids=str)
def test_before_the_first_change_the_policy_is_the_one_that_answered(
    start: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    one = learner(start, tmp_path, **changed)
    answers, _ = one.sample_answers(rewards(["micro:gold_reward"]))
    one.compute_advantages(answers)
    told = one.update(answers, sum(len(answer.tokens) for answer in answers))
    assert abs(told["approx_kl"]) < 1e-6
    assert told["clip"] == 0
    assert max(abs(answer.kl) for answer in answers) < 1e-4  # and it is the start
    moved = one.update(answers, sum(len(answer.tokens) for answer in answers))
    assert moved["approx_kl"] > 1e-6


@pytest.mark.slow
def test_an_answer_is_the_same_alone_and_among_others(start: Path, tmp_path: Path) -> None:
    policy = learner(start, tmp_path).policy
    prompts = [[2, 5, 52, 1], [2, 5, 52, 60, 61, 63, 1], [2, 5, 1]]
    many = list(policy.answers(prompts, [7, 8, 9], [0, 1, 2]))
    alone = [next(policy.answers([prompt], [seed], [0])) for prompt, seed in zip(prompts, (7, 8, 9), strict=True)]
    assert [one.tokens for one in many] == [one.tokens for one in alone]
    assert next(policy.answers(prompts[:1], [10], [0])).tokens != many[0].tokens


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_answers_are_drawn_by_the_policys_own_probabilities(start: Path, tmp_path: Path, temperature: float) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    policy = learner(start, tmp_path, temperature=temperature, max_new_tokens=1).policy
    prompt = [2, 5, 52, 56, 61, 1, 2, 5]
    count = 6000
    drawn = [one.tokens[0] for one in policy.answers([prompt] * count, range(count), range(count))]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(start)(torch.tensor([prompt])).logits[0, -1]
    expected = (logits / temperature).softmax(-1).numpy()
    found = np.bincount(drawn, minlength=len(micro.WORDS)) / count
    assert np.abs(found - expected).max() < 4 * np.sqrt(expected.max() / count)
    assert 0.5 * np.abs(found - expected).sum() < 0.06


@pytest.mark.slow
def test_the_models_own_sampling_habits_do_not_reach_the_answers(start: Path, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    shutil.copytree(start, tmp_path / "start")
    own = GenerationConfig(eos_token_id=1, pad_token_id=0, repetition_penalty=3.0, top_k=2, do_sample=True)
    own.save_pretrained(tmp_path / "start")
    habitual, plain = (learner(folder, tmp_path / "out").policy for folder in (tmp_path / "start", start))
    prompts, seeds = [[2, 5, 52, 1]] * 8, range(8)
    assert [one.tokens for one in habitual.answers(prompts, seeds, seeds)] == [
        one.tokens for one in plain.answers(prompts, seeds, seeds)
    ]
    assert habitual.model.generation_config.repetition_penalty == 3.0  # and is saved as it was


@pytest.mark.slow
def test_an_answer_that_does_not_end_costs(start: Path, tmp_path: Path) -> None:
    free = learner(start, tmp_path, max_new_tokens=7, missing_eos_penalty=0.0)
    dear = learner(start, tmp_path, max_new_tokens=7, missing_eos_penalty=0.75)
    pay = rewards(["micro:gold_reward"])
    pairs = list(zip(free.sample_answers(pay)[0], dear.sample_answers(pay)[0], strict=True))
    assert {one.ended for one, _ in pairs} == {True, False}
    for one, other in pairs:
        assert one.score - other.score == pytest.approx(0.0 if one.ended else 0.75)


@pytest.mark.slow
def test_where_padding_is_the_end_token_answers_still_end(start: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "start")
    same, one = learner(start, tmp_path / "out"), learner(tmp_path / "start", tmp_path / "out")
    pay = rewards(["micro:gold_reward"])
    for ours, theirs in zip(same.sample_answers(pay)[0], one.sample_answers(pay)[0], strict=True):
        assert ours.tokens == theirs.tokens
        assert float((ours.logprobs_T - theirs.logprobs_T).abs().max()) < 1e-5


# --- A training -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("r", [0, 4])
def test_resumed_equals_uninterrupted_to_the_bit(start: Path, tmp_path: Path, r: int) -> None:
    told: dict[str, list[Any]] = {"whole": [], "cut": []}
    chosen = {"r": r, "kl_horizon": 50, "learning_rate": 3e-3}
    METHOD.train(job(start, tmp_path / "whole", log=told["whole"].append), options(max_steps=6, **chosen))
    METHOD.train(job(start, tmp_path / "cut", log=told["cut"].append), options(max_steps=4, save_every=2, **chosen))
    shutil.rmtree(tmp_path / "cut" / "model")
    resumed = job(start, tmp_path / "cut", log=told["cut"].append, resume=True)
    METHOD.train(resumed, options(max_steps=6, **chosen))
    assert apart(tmp_path / "whole", tmp_path / "cut") == 0.0
    assert [one["step"] for one in told["cut"]] == [1, 2, 3, 4, 5, 6]
    timeless = [{key: value for key, value in one.items() if key != "tokens_per_second"} for one in told["whole"]]
    assert timeless == [{key: value for key, value in one.items() if key != "tokens_per_second"} for one in told["cut"]]


@pytest.mark.slow
def test_a_half_written_checkpoint_is_passed_over(start: Path, tmp_path: Path) -> None:
    METHOD.train(job(start, tmp_path / "whole"), options(max_steps=4))
    METHOD.train(job(start, tmp_path / "cut"), options(max_steps=2, save_every=2))
    half = tmp_path / "cut" / "checkpoints" / "checkpoint-3"
    half.mkdir()
    (half / "state.pt").write_bytes(b"half")
    METHOD.train(job(start, tmp_path / "cut", resume=True), options(max_steps=4))
    assert apart(tmp_path / "whole", tmp_path / "cut") == 0.0


@pytest.mark.slow
def test_eight_batches_of_one_are_the_step_of_one_batch_of_eight(start: Path, tmp_path: Path) -> None:
    for name, size, accumulate in (("one", 1, 8), ("eight", 8, 1)):
        chosen = options(max_steps=3, batch_size=size, accumulate=accumulate)
        METHOD.train(job(start, tmp_path / name, rows=UNEVEN), chosen)
    assert 0 < apart(tmp_path / "one", tmp_path / "eight") < 2e-5


@pytest.mark.slow
def test_two_processes_are_one(start: Path, tmp_path: Path) -> None:
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
import torch; torch.set_num_threads(1)
import test_ppo as t
from pathlib import Path
told = []
t.METHOD.train(t.job(Path({str(start)!r}), Path({str(tmp_path / "two")!r}), log=told.append), t.options(max_steps=3, batch_size=4))
"""
    (tmp_path / "both.py").write_text(code)
    METHOD.train(job(start, tmp_path / "one"), options(max_steps=3, batch_size=8))
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(tmp_path / "both.py"),
    ]
    done = subprocess.run(run, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < apart(tmp_path / "one", tmp_path / "two") < 2e-5


@pytest.mark.slow
def test_lora_folded_in_answers_as_the_adapter_did(start: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for name, merge in (("folded", True), ("adapter", False)):
        METHOD.train(job(start, tmp_path / name), options(max_steps=4, r=4, learning_rate=1e-2, merge=merge))
    ids = torch.tensor([[2, 5, 52, 56, 61, 1, 2, 6]])
    folded = AutoModelForCausalLM.from_pretrained(tmp_path / "folded" / "model")
    base = AutoModelForCausalLM.from_pretrained(start)
    before = base(ids).logits
    adapter = PeftModel.from_pretrained(base, tmp_path / "adapter" / "model")
    with torch.no_grad():
        assert float((folded(ids).logits - adapter(ids).logits).abs().max()) < 1e-5
        assert float((folded(ids).logits - before).abs().max()) > 1e-3


def some_unrewarded(prompts: Any, answers: list[str], rows: Any) -> list[float | None]:
    """None for an answer that ends in a plain word, NaN for those that begin with one."""
    return [
        None if answer.split()[-1:] and answer.split()[-1] in micro.PLAIN
        else float("nan") if answer.split()[:1] and answer.split()[0] in micro.PLAIN
        else micro.gold(answer)
        for answer in answers
    ]  # fmt: skip


@pytest.mark.slow
def test_answers_without_a_reward_are_left_out_and_counted(start: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    pay = ["test_ppo:some_unrewarded"]
    figures = METHOD.train(job(start, tmp_path, log=told.append), options(max_steps=3, rewards=pay))
    assert figures["unrewarded"] == sum(one["unrewarded"] for one in told) > 3
    assert all(np.isfinite(one["reward"]) for one in told)
    answers, _ = learner(start, tmp_path).sample_answers(rewards(pay))
    assert [one.score for one in answers] == [
        score if score == score else None for score in some_unrewarded([], [one.text for one in answers], [])
    ]


@pytest.mark.slow
def test_early_stop_leaves_the_passes_of_a_step(start: Path, tmp_path: Path) -> None:
    one, other = learner(start, tmp_path), learner(start, tmp_path, target_kl=1e-9, passes=50)
    for each in (one, other):
        answers, _ = each.sample_answers(rewards(["micro:gold_reward"]))
        each.learn(answers)
    assert one.optimiser.state[one.policy.trained()[0]]["step"] == 4  # two passes over 16 answers, 8 at a time
    assert other.optimiser.state[other.policy.trained()[0]]["step"] == 2


def enormous(prompts: Any, answers: list[str], rows: Any) -> list[float]:
    """A reward whose square is infinite."""
    return [1e30 * micro.gold(answer) for answer in answers]


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_and_leaves_no_model(start: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="step 1: the loss is not a number"):
        METHOD.train(job(start, tmp_path), options(max_steps=2, rewards=["test_ppo:enormous"]))
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_prompts_that_leave_no_room_are_counted(start: Path, tmp_path: Path) -> None:
    figures = METHOD.train(job(start, tmp_path, rows=UNEVEN), options(max_steps=1, max_length=21))
    assert figures["too_long"] == 4
    with pytest.raises(Mistake, match="no prompt has at most"):
        METHOD.train(job(start, tmp_path), options(max_steps=1, max_length=13))
