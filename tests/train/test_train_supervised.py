"""Supervised methods on models of a few thousand weights: equal to TRL, to themselves in pieces, and to what they save."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import micro
import pytest
from tiny import tiny_model

from cai.backends.local.reward_model import open_scorer
from cai.core import plugins
from cai.core.errors import Mistake
from cai.core.plugin_types import Job, Method
from cai.core.plugins import PACKAGE
from cai.core.types import Message
from cai.train.run.score import score_file
from cai.train.run.train import Order, config, train

pytestmark = pytest.mark.slow
METHODS = ("sft", "dpo", "kto", "orpo", "reward")
ROWS = {"pairs": lambda rows: rows, "messages": micro.messages, "labels": micro.labels}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro.start(tmp_path_factory.mktemp("start"), steps=100)


@pytest.fixture(scope="module")
def reward_model(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reward")
    trained("reward", start, out, micro.pairs(480), max_steps=120, learning_rate=3e-3, r=0, batch_size=8)
    return out / "model"


def job(method: str, model: Path, out: Path, pairs: list[dict[str, Any]], lines: list[Any] | None = None) -> Job:
    rows = ROWS[plugins.find_plugin("train", method, Method).rows](pairs)
    out.mkdir(parents=True, exist_ok=True)
    return Job(model, rows, [], out, 0, True, (lines if lines is not None else []).append)


def trained(
    name: str, model: Path, out: Path, pairs: list[dict[str, Any]], lines: list[Any] | None = None, **options: Any
) -> Mapping[str, Any]:
    method = plugins.find_plugin("train", name, Method)
    given = {"max_length": 64, "learning_rate": 1e-3, **options}
    return method.train(job(name, model, out, pairs, lines), method.options(**given))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def distance(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def pairs_file(path: Path, count: int = 60, **more: Any) -> Path:
    path.write_text("".join(json.dumps(row | more) + "\n" for row in micro.pairs(count, sharpness=3.0)))
    return path


# --- Equal to the reference -------------------------------------------------------------------------------------------


def plain(trainer: type, config: type, rows: list[dict[str, Any]], model: Any, folder: Path, **fields: Any) -> Any:
    """TRL's own trainer, or ours, on rows as they are."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from cai.train.trl.trainer import quiet

    fields |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": 64}
    with quiet():
        settings = config(str(folder / "out"), per_device_train_batch_size=8, save_strategy="no", **fields)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return trainer(model=model, args=settings, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))


def first_loss(trainer: Any) -> Any:
    """The loss of the first eight rows."""
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[place] for place in range(8)]))
    trainer.model.train()
    return trainer.compute_loss(trainer.model, batch).detach()


def columns(rows: list[dict[str, Any]], **labels: Any) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("prompt", "chosen", "rejected")} | labels for row in rows]


def judge_of(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)


def moved(folder: Path) -> Any:
    """A policy that is no longer its reference, so that the loss depends on the rows."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return model


def test_soft_labels_of_one_give_the_loss_of_trls_reward_trainer(start: Path) -> None:
    from trl import RewardConfig, RewardTrainer

    from cai.train.trl.soft_labels import SoftRewardTrainer

    rows, more = micro.pairs(8), {"center_rewards_coefficient": 0.01}
    theirs = first_loss(plain(RewardTrainer, RewardConfig, columns(rows), judge_of(start), start, **more))
    sure = columns(rows, p=1.0, weight=1.0)
    ours = first_loss(plain(SoftRewardTrainer, RewardConfig, sure, judge_of(start), start, **more))
    margins = [row | {"margin": 0.3} for row in sure]
    ours_m = first_loss(plain(SoftRewardTrainer, RewardConfig, margins, judge_of(start), start, **more))
    theirs_m = first_loss(plain(RewardTrainer, RewardConfig, columns(rows, margin=0.3), judge_of(start), start, **more))
    assert float(theirs) != pytest.approx(log(2), abs=1e-4)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)
    assert float(ours_m) == pytest.approx(float(theirs_m), abs=1e-6) != pytest.approx(float(theirs), abs=1e-3)


@pytest.mark.parametrize("precompute", [True, False])
def test_soft_labels_of_one_give_the_loss_of_trls_dpo_trainer(start: Path, precompute: bool) -> None:
    from trl import DPOConfig, DPOTrainer

    from cai.train.trl.soft_labels import SoftDPOTrainer

    def loss(kind: type, rows: list[dict[str, Any]]) -> float:
        trainer = plain(kind, DPOConfig, rows, str(start), start, precompute_ref_log_probs=precompute)
        trainer.model.load_state_dict(moved(start).state_dict())
        return float(first_loss(trainer))

    rows = micro.pairs(8)
    theirs, ours = loss(DPOTrainer, columns(rows)), loss(SoftDPOTrainer, columns(rows, p=1.0, weight=1.0))
    assert theirs != pytest.approx(log(2), abs=1e-3)
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_label_of_one_half_gives_ln_2_and_pulls_to_neither_side() -> None:
    import torch

    from cai.train.trl.soft_labels import soft_loss

    d = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss = soft_loss(d, torch.full((4,), 0.5, dtype=torch.float64), None)
    loss.backward()
    assert loss.item() == pytest.approx(log(2), abs=1e-12)
    assert d.grad is not None and d.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["reward", "dpo"])
def test_ties_alone_leave_a_model_that_starts_level_where_it_was(name: str, start: Path, tmp_path: Path) -> None:
    ties = [row | {"p_chosen": 0.5} for row in micro.pairs(16)]
    more = {"center": 0, "length": "none"} if name == "reward" else {}
    lines: list[dict[str, Any]] = []
    trained(name, start, tmp_path, ties, lines, max_steps=2, r=0, **more)
    if name == "dpo":  # the policy starts as its reference, so that every difference is 0
        assert lines[0]["loss"] == pytest.approx(log(2), abs=1e-6)
        assert lines[0]["grad_norm"] == pytest.approx(0, abs=1e-6)
        assert distance(start, tmp_path / "model") == 0
    else:  # a reward head starts from chance, and is pulled towards calling them equal
        assert lines[0]["loss"] >= log(2) and lines[0]["accuracy"] == 0.5


def test_a_row_of_weight_nought_teaches_nothing(start: Path, tmp_path: Path) -> None:
    rows = [row | {"weight": 1.0} for row in micro.pairs(8)]
    noise = [row | {"weight": 0.0} for row in micro.pairs(8, seed=5)]
    both = [row for pair in zip(rows, noise, strict=True) for row in pair]
    lines: dict[str, list[Any]] = {"clean": [], "noisy": []}
    trained("dpo", start, tmp_path / "clean", rows, lines["clean"], max_steps=1, batch_size=8, r=0)
    trained("dpo", start, tmp_path / "noisy", both, lines["noisy"], max_steps=1, batch_size=16, r=0)
    assert distance(tmp_path / "clean" / "model", tmp_path / "noisy" / "model") < 1e-5


def test_sft_learns_the_answer_and_its_end_and_never_the_prompt(start: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows, lines = micro.pairs(1), list[dict[str, Any]]()
    trained("sft", start, tmp_path, rows, lines, max_steps=1)
    tokenizer, model = AutoTokenizer.from_pretrained(start), AutoModelForCausalLM.from_pretrained(start)
    asked = tokenizer.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(rows[0]["prompt"] + rows[0]["chosen"])["input_ids"]
    with torch.no_grad():
        logprobs_TV = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    answer = range(len(asked), len(whole))
    nll = -sum(float(logprobs_TV[place - 1, whole[place]]) for place in answer) / len(answer)
    assert tokenizer.eos_token_id in whole[len(asked) :]
    assert lines[0]["loss"] == pytest.approx(nll, abs=1e-5)


# --- Invariants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "dpo", "reward"])
def test_one_batch_of_eight_equals_eight_of_one(name: str, start: Path, tmp_path: Path) -> None:
    rows = [row | {"weight": 1.0 + number % 3} for number, row in enumerate(micro.pairs(32, sharpness=3.0))]
    for size in (8, 1):
        trained(name, start, tmp_path / str(size), rows, batch_size=size, accumulate=8 // size, max_steps=3, r=0)
    assert distance(tmp_path / "8" / "model", tmp_path / "1" / "model") < 2e-5


@pytest.mark.parametrize("r", [0, 4])
@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_training_equals_an_uninterrupted_one_to_the_bit(
    name: str, r: int, start: Path, tmp_path: Path
) -> None:
    rows = micro.pairs(24, sharpness=3.0)
    lines: dict[str, list[Any]] = {"whole": [], "pieces": []}
    trained(name, start, tmp_path / "whole", rows, lines["whole"], max_steps=7, r=r)
    with pytest.raises(KeyboardInterrupt):
        trained_until(3, name, start, tmp_path / "pieces", rows, lines["pieces"], max_steps=7, r=r)
    assert not (tmp_path / "pieces" / "model").exists()
    trained(name, start, tmp_path / "pieces", rows, lines["pieces"], max_steps=7, r=r)
    assert distance(tmp_path / "whole" / "model", tmp_path / "pieces" / "model") == 0
    losses = {which: [line["loss"] for line in seen if "loss" in line] for which, seen in lines.items()}
    assert losses["whole"] == losses["pieces"] and len(losses["whole"]) == 7


@pytest.mark.parametrize("name", METHODS)
def test_a_training_stopped_in_its_last_step_makes_no_other(name: str, start: Path, tmp_path: Path) -> None:
    rows = micro.pairs(24, sharpness=3.0)
    steady = {"max_steps": 4, "r": 4, "trl": {"lr_scheduler_type": "constant"}}
    trained(name, start, tmp_path / "whole", rows, **steady)
    with pytest.raises(KeyboardInterrupt):
        trained_until(4, name, start, tmp_path / "pieces", rows, [], **steady)
    trained(name, start, tmp_path / "pieces", rows, **steady)
    assert distance(tmp_path / "whole" / "model", tmp_path / "pieces" / "model") == 0


def trained_until(step: int, name: str, model: Path, out: Path, rows: Any, lines: list[Any], **options: Any) -> None:
    """A training that a person stops by Ctrl-C at this step."""
    method = plugins.find_plugin("train", name, Method)

    def log(line: Mapping[str, Any]) -> None:
        lines.append(line)
        if line.get("step") == step:
            os.kill(os.getpid(), signal.SIGINT)

    method.train(
        replace(job(name, model, out, rows), log=log),
        method.options(**{"max_length": 64, "learning_rate": 1e-3, **options}),
    )


@pytest.mark.parametrize("name", ["dpo", "reward"])
def test_lora_folded_in_equals_the_adapter_beside_the_model(name: str, start: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from cai.train.trl.trainer import merged

    rows = micro.pairs(24)
    for merge in (True, False):
        trained(name, start, tmp_path / str(merge), rows, max_steps=6, r=4, merge=merge, learning_rate=1e-2)
    if name == "reward":
        asked = [((Message("user", "tell sea here"),), answer) for answer in ("calm brave", "stupid the road of hill")]
        one, other = (open_scorer(tmp_path / str(merge) / "model").scores(asked) for merge in (True, False))
        assert one == pytest.approx(other, abs=1e-5)
        return
    ids = torch.tensor([[2, 5, 9, 20, 31]])
    with torch.no_grad():
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "True" / "model")(ids).logits
        folded = merged(tmp_path / "False" / "model")(ids).logits
        before = AutoModelForCausalLM.from_pretrained(start)(ids).logits
    assert (saved - folded).abs().max() < 1e-5 < 1e-2 < (saved - before).abs().max()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["sft", "dpo", "reward"])
def test_two_processes_equal_one(name: str, start: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.jsonl", 40)
    if name == "sft":
        data.write_text("".join(json.dumps(row) + "\n" for row in micro.messages(micro.pairs(40))))
    command = [
        "train", name, str(data), "--model", str(start), "--quiet", "--held-out", "0", "-o", "max_steps=3", "-o", "r=0",
        "-o", "max_length=64", "-o", "learning_rate=1e-3",
    ]  # fmt: skip
    bin = Path(sys.executable).parent
    alone = [str(bin / "cai"), *command, "--out", str(tmp_path / "one"), "-o", "batch_size=8"]
    both = [str(bin / "torchrun"), "--nproc_per_node", "2", "--no-python", str(bin / "cai"), *command]
    both += ["--out", str(tmp_path / "two"), "-o", "batch_size=4"]
    for order in (alone, both):
        done = subprocess.run(
            order, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "two" / "settings.json").read_text())["processes"] == 2
    assert distance(tmp_path / "one" / "model", tmp_path / "two" / "model") < 1e-4
    steps = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert len([line for line in steps if '"loss"' in line]) == 3  # one process writes


# --- Reward models ----------------------------------------------------------------------------------------------------


def test_a_score_does_not_depend_on_the_batch(reward_model: Path) -> None:
    rows = [((Message("user", prompt),), "calm " * count) for count, prompt in enumerate(micro.asked("train")[:12], 1)]
    together = open_scorer(reward_model, batch_size=12).scores(rows)
    alone = [open_scorer(reward_model, batch_size=1).scores([row])[0] for row in rows]
    assert together == pytest.approx(alone, abs=1e-5)
    assert max(together) - min(together) > 0.01


@pytest.mark.parametrize("architecture", ["llama", "sliding", "gpt2"])
def test_scores_are_the_same_alone_and_padded_in_other_architectures(architecture: str, tmp_path: Path) -> None:
    tiny_model(tmp_path / "base", architecture)
    rows = micro.pairs(8)
    trained("reward", tmp_path / "base", tmp_path / "out", rows, max_steps=2, r=0, max_length=200)
    asked = [((Message("user", "why"),), "word " * count) for count in (1, 9, 3)]
    scorer = open_scorer(tmp_path / "out" / "model", batch_size=3)
    alone = [scorer.scores([row])[0] for row in asked]
    assert scorer.scores(asked) == pytest.approx(alone, abs=1e-5)


def test_a_reward_model_learns_what_is_preferred(reward_model: Path) -> None:
    rows = micro.pairs(60, seed=9)
    scorer = open_scorer(reward_model)
    sides = [
        [((Message("user", row["prompt"][0]["content"]),), row[side][0]["content"]) for row in rows]
        for side in ("chosen", "rejected")
    ]
    chosen, rejected = (scorer.scores(side) for side in sides)
    assert sum(a > b for a, b in zip(chosen, rejected, strict=True)) > 45


def test_an_ensemble_shares_a_backbone_and_its_members_differ(start: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    trained("reward", start, tmp_path, micro.pairs(60), lines, members=3, max_steps=8, learning_rate=1e-2, r=4)
    scorer = open_scorer(tmp_path / "model")
    asked = [((Message("user", "tell sea here"),), "calm brave"), ((Message("user", "tell sea here"),), "vile dull")]
    each = scorer.each(asked)
    assert scorer.members == 3 and len(set(each[0])) == 3
    least = open_scorer(tmp_path / "model", combine="min").scores(asked)
    assert least == pytest.approx([min(one) for one in each])
    assert {line["member"] for line in lines} == {"member-0", "member-1", "member-2"}
    moved = shutil.copytree(tmp_path / "model", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "model")
    assert open_scorer(moved).each(asked) == each


def test_length_is_explained_away_where_labels_follow_it(start: Path, tmp_path: Path) -> None:
    rows = micro.pairs(200, reward=lambda answer: len(answer.split()) + 0.01 * micro.gold(answer), sharpness=1.0)
    found = {}
    for how in ("none", "margin"):
        trained(
            "reward", start, tmp_path / how, rows, length=how, max_steps=40, learning_rate=5e-3, center=0, batch_size=8
        )
        asked = [((Message("user", "tell sea here"),), "the " * count) for count in range(1, 13)]
        scores = open_scorer(tmp_path / how / "model").scores(asked)
        found[how] = scores[-1] - scores[0]
    assert found["none"] > 1 and abs(found["margin"]) < found["none"] / 2


def test_what_is_no_reward_model_is_one_mistake(start: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    with pytest.raises(Mistake, match="has no reward head"):
        open_scorer(start)
    AutoModelForSequenceClassification.from_pretrained(start, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(Mistake, match="its head has 3 outputs"):
        open_scorer(tmp_path)
    with pytest.raises(Mistake, match="is no folder"):
        open_scorer(tmp_path / "absent")


def test_a_row_longer_than_the_model_reads_is_refused_and_never_cut(reward_model: Path) -> None:
    with pytest.raises(Mistake, match="row 2: has 10. tokens, and the reward model reads 64"):
        open_scorer(reward_model).scores([((Message("user", "a"),), "calm"), ((Message("user", "a"),), "calm " * 100)])


def test_a_file_is_scored_by_several_models(reward_model: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.jsonl", 30)
    rows, summary = score_file([reward_model, reward_model], data, combine="min")
    assert len(rows) == 30 == summary["rows"] and summary["members"] == 2
    assert all(row["members"]["chosen"][0] == row["members"]["chosen"][1] == row["chosen"] for row in rows)
    assert all((row["p"] > 0.5) == (row["chosen"] > row["rejected"]) for row in rows)
    assert summary["accuracy"]["value"] > 0.6


def test_scores_are_named_as_the_file_names_its_sides(reward_model: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.jsonl", 10)
    (rows, _), doubted = score_file([reward_model], data), tmp_path / "doubted.jsonl"
    made = [json.loads(line) for line in data.read_text().splitlines()]
    doubted.write_text("".join(json.dumps(row | {"p_chosen": 0.1}) + "\n" for row in made))
    again, _ = score_file([reward_model], doubted)
    assert [(row["chosen"], row["rejected"], row["p"]) for row in again] == [
        (row["chosen"], row["rejected"], row["p"]) for row in rows
    ]
    assert {round(row["label"], 6) for row in again} == {0.1}


def test_a_row_that_one_of_several_models_cannot_read_whole_is_left_out(reward_model: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "base", "llama")
    trained("reward", tmp_path / "base", tmp_path / "long", micro.pairs(8), max_steps=1, r=0, max_length=200)
    data = pairs_file(tmp_path / "pairs.jsonl", 6)
    row = json.loads(data.read_text().splitlines()[0])
    long = row | {"id": "long", "chosen": [{"role": "assistant", "content": "calm " * 70}]}
    data.write_text(json.dumps(long) + "\n" + data.read_text())
    for models in ([tmp_path / "long" / "model", reward_model], [reward_model, tmp_path / "long" / "model"]):
        rows, summary = score_file(models, data)
        assert "long" not in {row["id"] for row in rows} and len(rows) == 6
        assert summary["left_out"] == {"too_long": 1} and summary["members"] == 2


def test_a_reward_model_is_no_policy(reward_model: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="is a reward model, which writes no text"):
        trained("dpo", reward_model, tmp_path / "out", micro.pairs(8), max_steps=1)


# --- From end to end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_training_leaves_what_repeats_it_and_a_model_that_loads(name: str, start: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = tmp_path / "rows.jsonl"
    rows = ROWS[plugins.find_plugin("train", name, Method).rows](micro.pairs(40, sharpness=3.0))
    data.write_text("".join(json.dumps(row | {"constitution": "c" * 64}) + "\n" for row in rows))
    order = Order(name, data, str(start), tmp_path / "out", {"max_steps": 3, "max_length": 64})
    said = train(order).as_json()
    assert {path.name for path in order.out.iterdir()} == {
        ".lock",
        "settings.json",
        "metrics.jsonl",
        "figures.json",
        "model",
    }
    assert said["rows"]["used"] + said["rows"]["held_out"] == said["rows"]["read"]
    assert said["figures"]["steps"] == 3 and said["figures"]["eval_loss"] > 0
    card = (order.out / "model" / "README.md").read_text()
    assert f"cai train {name}" in card and (name in ("dpo", "reward", "kto", "orpo") or "cccccccccccccccc" in card)
    if name == "reward":
        assert open_scorer(order.out / "model").members == 1
    else:
        assert AutoModelForCausalLM.from_pretrained(order.out / "model").config.vocab_size == len(micro.WORDS)
    assert AutoTokenizer.from_pretrained(order.out / "model").chat_template == micro.CHAT
    assert train(order).as_json() == said  # finished: nothing is done again


def test_a_chain_of_trainings_is_told_in_the_card(start: Path, tmp_path: Path) -> None:
    sft = tmp_path / "sft.jsonl"
    sft.write_text("".join(json.dumps(row) + "\n" for row in micro.messages(micro.pairs(20))))
    options = {"max_steps": 1, "max_length": 64}
    train(Order("sft", sft, str(start), tmp_path / "one", options))
    train(Order("dpo", pairs_file(tmp_path / "p.jsonl"), str(tmp_path / "one"), tmp_path / "two", options))
    chain = json.loads((tmp_path / "two" / "model" / "provenance.json").read_text())
    assert (chain["method"], chain["model"]["made"]["method"]) == ("dpo", "sft")


def test_a_loss_that_is_no_number_stops_with_one_line_and_no_model(start: Path, tmp_path: Path) -> None:
    options = {"max_steps": 60, "max_length": 64, "learning_rate": 1.0, "r": 0, "trl": {"max_grad_norm": 1e30}}
    broken = shutil.copytree(start, tmp_path / "broken")
    _poison(broken)
    with pytest.raises(Mistake, match=r"step 1: the loss is nan"):
        train(Order("dpo", pairs_file(tmp_path / "p.jsonl"), str(broken), tmp_path / "out", options))
    assert not (tmp_path / "out" / "model").exists() and not (tmp_path / "out" / "figures.json").exists()


def _poison(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    held["lm_head.weight"] = held["lm_head.weight"] * float("nan")
    save_file(held, folder / "model.safetensors", {"format": "pt"})


def test_a_model_without_a_chat_template_is_one_mistake(tmp_path: Path) -> None:
    tiny_model(tmp_path / "plain", chat=None)
    with pytest.raises(Mistake, match="its tokenizer has no chat template"):
        train(Order("dpo", pairs_file(tmp_path / "p.jsonl"), str(tmp_path / "plain"), tmp_path / "out"))


def test_an_ensemble_goes_on_with_the_member_where_it_stopped(start: Path, tmp_path: Path) -> None:
    rows = micro.pairs(30)
    options = {"members": 2, "max_steps": 4, "r": 4}
    trained("reward", start, tmp_path / "whole", rows, **options)
    lines: list[Any] = []
    method = plugins.find_plugin("train", "reward", Method)

    def log(line: Mapping[str, Any]) -> None:
        lines.append(line)
        if (line.get("member"), line.get("step")) == ("member-1", 2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        given = {"max_length": 64, "learning_rate": 1e-3, **options}
        method.train(replace(job("reward", start, tmp_path / "pieces", rows), log=log), method.options(**given))
    trained("reward", start, tmp_path / "pieces", rows, lines, **options)
    steps = [(line["member"], line["step"]) for line in lines if "loss" in line]
    assert steps == [(member, step) for member in ("member-0", "member-1") for step in range(1, 5)]
    asked = [((Message("user", "tell sea here"),), "calm brave")]
    assert open_scorer(tmp_path / "whole" / "model").each(asked) == open_scorer(tmp_path / "pieces" / "model").each(
        asked
    )


def test_a_field_that_trl_does_not_have_is_refused_before_anything_is_loaded(start: Path, tmp_path: Path) -> None:
    options = {"max_length": 64, "trl": {"warmup_step": 3}}
    with pytest.raises(
        Mistake, match=r"trl\.warmup_step: is not a field of TRL's DPOConfig; did you mean 'warmup_steps'"
    ):
        train(Order("dpo", pairs_file(tmp_path / "p.jsonl"), str(start), tmp_path / "out", options))


def test_a_full_disk_is_one_line_and_leaves_no_model(start: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "p.jsonl")
    code = f"""
import resource, sys
from cai.cli import main as cli
import torch, trl, peft, datasets
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
sys.argv = ["cai", "train", "dpo", {str(data)!r}, "--model", {str(start)!r}, "--out", {str(tmp_path / "out")!r},
            "--quiet", "-o", "max_steps=1", "-o", "max_length=64", "-o", "r=0"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "cannot be written" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "model").exists() and not (tmp_path / "out" / "figures.json").exists()


def test_ctrl_c_saves_and_the_same_command_goes_on(start: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "p.jsonl")
    command = [
        str(Path(sys.executable).parent / "cai"), "train", "dpo", str(data), "--model", str(start), "--out",
        str(tmp_path / "out"), "-o", "max_steps=400", "-o", "max_length=64",
    ]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("step 5 "):
            running.send_signal(signal.SIGINT)
    assert running.wait() == 130
    assert list((tmp_path / "out" / "checkpoints").glob("checkpoint-*/whole.json"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, 401))


@pytest.mark.parametrize("name", ["dpo", "reward"])  # sft and kto pass as well; each takes half a minute
def test_the_printed_config_is_what_trls_own_command_takes(name: str, start: Path, tmp_path: Path) -> None:
    kind = plugins.find_plugin("train", name, Method).rows
    (tmp_path / "data").mkdir()
    rows = "".join(json.dumps(row) + "\n" for row in ROWS[kind](micro.pairs(16)))
    (tmp_path / "data" / "train.jsonl").write_text(rows)
    options = {"max_steps": 1, "max_length": 64, "trl": {"warmup_steps": 3}}
    said = config(Order(name, tmp_path / "data", str(start), tmp_path / "out", options))
    assert (said["warmup_steps"], said["max_length"], said["use_peft"]) == (3, 64, True)
    (tmp_path / "c.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in said.items()))
    command = [str(Path(sys.executable).parent / "trl"), name, "--config", str(tmp_path / "c.yaml")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "model" / "adapter_model.safetensors").is_file()


def test_a_method_without_a_command_in_trl_says_so(start: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="has no equivalent in TRL's command line"):
        config(Order("orpo", tmp_path, str(start), tmp_path / "out"))


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3", "fsdp2_2node", "single_gpu", "cpu"])
def test_accelerate_reads_the_launch_files(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    file = PACKAGE.joinpath("train", "accelerate") / f"{name}.yaml"
    config = load_config_from_file(str(file))
    assert config.num_processes == {"fsdp2_2node": 16, "single_gpu": 1, "cpu": 1}.get(name, 8)
