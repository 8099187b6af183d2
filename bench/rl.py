"""Tokens a second of our PPO beside those of TRL's RLOO, as a bare script, at equal rollouts.

Same model, prompts, number of answers, longest answer, reward and threads. RLOO learns from its answers once; PPO with
one pass does the same work and a value head, and with four passes, its default, learns four times. The learning rate is
next to nothing, so that all write answers of the same kind. The first step of each is not counted. Rounds are
interleaved: on a busy machine believe the ratios.

Left out on purpose: vLLM, which TRL can sample with on a GPU.

    .venv/bin/python bench/rl.py [--model micro --answers 32 --steps 10 --rounds 3]
    .venv/bin/python bench/rl.py --model smollm2-135m-instruct --answers 8 --steps 2 --rounds 2 --tokens 32 --r 16
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import micro

from cai.core import plugins
from cai.core.plugin_types import Job, Method

RATE = 1e-7


def ours(model: Path, out: Path, given: argparse.Namespace, passes: int) -> float:
    """Tokens a second of our PPO."""
    told: list[Any] = []
    method = plugins.find_plugin("train", "ppo", Method)
    options = method.options(
        rewards="micro:gold_reward", r=given.r, device=given.device, learning_rate=RATE, batch_size=given.answers,
        rollouts=given.answers, passes=passes, max_steps=given.steps + 1, max_new_tokens=given.tokens,
    )  # fmt: skip
    method.train(Job(model, micro.prompts(), [], out, 0, False, told.append), options)
    return rate(
        [(one["length"] * given.answers, one["length"] * given.answers / one["tokens_per_second"]) for one in told]
    )


def theirs(model: Path, out: Path, given: argparse.Namespace) -> float:
    """Tokens a second of TRL's RLOO."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, TrainerCallback
    from trl import RLOOConfig, RLOOTrainer

    from cai.train.trl.trainer import quiet

    class Clock(TrainerCallback):
        """Tokens and seconds of each step."""

        def __init__(self) -> None:
            self.steps: list[tuple[float, float]] = []

        def on_log(self, *args: Any, logs: Any = None, **_: Any) -> None:
            if "completions/mean_length" in logs:
                self.steps.append((logs["completions/mean_length"] * given.answers, logs["step_time"]))

    def reward(completions: Any, **_: Any) -> list[float]:
        return [micro.gold(completion[0]["content"]) for completion in completions]

    clock, cpu = Clock(), given.device == "cpu"
    config = RLOOConfig(
        output_dir=str(out), use_cpu=cpu, bf16=not cpu, gradient_checkpointing=False, report_to="none",
        disable_tqdm=True, save_strategy="no", max_steps=given.steps + 1, logging_steps=1, learning_rate=RATE,
        per_device_train_batch_size=given.answers, num_generations=4, max_completion_length=given.tokens, beta=0.1,
    )  # fmt: skip
    lora = LoraConfig(r=given.r, lora_alpha=2 * given.r, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        trainer = RLOOTrainer(
            model=str(model), args=config, reward_funcs=reward, callbacks=[clock], peft_config=lora if given.r else None,
            train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in micro.prompts()]),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return rate(clock.steps)


def rate(steps: list[tuple[float, float]]) -> float:
    """Of all steps but the first."""
    return sum(tokens for tokens, _ in steps[1:]) / sum(seconds for _, seconds in steps[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--answers", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=micro.LONGEST)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--r", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    import torch

    from cai.backends.local.weights import find_weights

    if given.device == "cpu":
        torch.set_num_threads(1)
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        model = micro.start(out / "start") if given.model == "micro" else Path(find_weights(given.model).folder)
        for _ in range(given.rounds):
            rounds.append(
                {
                    "TRL's RLOO": theirs(model, out / "trl", given),
                    "our PPO, one pass": ours(model, out / "ppo", given, 1),
                    "our PPO, four passes": ours(model, out / "ppo", given, 4),
                }
            )
    device = torch.cuda.get_device_name() if given.device == "cuda" else f"cpu, {torch.get_num_threads()} thread"
    print(f"{given.model}, {given.answers} answers of at most {given.tokens} tokens a step, {device}")
    print("| | tokens/s | of TRL's RLOO (rounds) |\n| --- | ---: | ---: |")
    for name in rounds[0]:
        shares = [one[name] / one["TRL's RLOO"] for one in rounds]
        each = ", ".join(f"{share:.2f}" for share in shares)
        print(f"| {name} | {median(one[name] for one in rounds):.0f} | {median(shares):.2f} ({each}) |")
    file = Path(__file__).with_suffix(".json")
    known = json.loads(file.read_text()) if file.is_file() else {}
    known[f"{given.model}, {device}"] = {"settings": vars(given), "rounds": rounds}
    file.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
