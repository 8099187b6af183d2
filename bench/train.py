"""Seconds a step of `cai`'s SFT, reward and DPO training beside a bare TRL script with the same settings.

Both run in this process on the same rows, in turn and several times; the first round only warms up. Timed is
`Trainer.train` alone, by the wall and by the CPU; the ratio is that of the CPU medians, which neighbours on the
machine disturb less. PPO against TRL's RLOO is in bench/rl.py.

    python bench/train.py                          the embedded model, LoRA
    python bench/train.py --model micro --steps 40 a model of 40,000 weights: nothing but overhead
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import micro
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

from cai.backends.local.model_folders import model_folder
from cai.core import plugins
from cai.core.plugin_types import Job, Method
from cai.train.trl.datasets import completion_rows, preferences
from cai.train.trl.trainer import lora, quiet, settings

TIMES: list[tuple[float, float]] = []


def timed() -> None:
    """Have every `Trainer.train` note its seconds, ours and TRL's alike."""
    plain = transformers.Trainer.train

    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        done = plain(self, *args, **kwargs)
        TIMES.append((time.perf_counter() - wall, time.process_time() - cpu))
        return done

    transformers.Trainer.train = train


def pairs(count: int, words: int) -> list[dict[str, Any]]:
    chance = random.Random(0)
    known = ["the", "sea", "is", "calm", "and", "a", "road", "leads", "over", "hills", "to", "some", "old", "town"]

    def turn(role: str) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(chance.choices(known, k=words))}]

    return [
        {
            "id": str(n),
            "prompt": turn("user"),
            "chosen": turn("assistant"),
            "rejected": turn("assistant"),
            "p_chosen": 1.0,
        }
        for n in range(count)
    ]


def ours(name: str, job: Job, options: Any) -> None:
    plugins.find_plugin("train", name, Method).train(job, options)


def bare(name: str, job: Job, options: Any) -> None:
    """What one would write with TRL's documentation open: the same settings, no soft labels."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    config, trainer = {
        "sft": (SFTConfig, SFTTrainer),
        "dpo": (DPOConfig, DPOTrainer),
        "reward": (RewardConfig, RewardTrainer),
    }[name]
    rows = completion_rows(job.rows) if name == "sft" else preferences(job.rows, soft=False)
    with quiet():
        set_seed(0)
        kind, more = (
            (AutoModelForSequenceClassification, {"num_labels": 1}) if name == "reward" else (AutoModelForCausalLM, {})
        )
        running = trainer(
            model=kind.from_pretrained(job.model, dtype=torch.float32, **more),
            args=settings(config, job, options, **plugins.find_plugin("train", name, Method).trl(options)),
            processing_class=AutoTokenizer.from_pretrained(job.model),
            peft_config=lora(options, job, "SEQ_CLS" if name == "reward" else "CAUSAL_LM"),
            train_dataset=Dataset.from_list(rows),
        )
        running.remove_callback(transformers.PrinterCallback)  # ours does not print either
        running.train()


def measure(name: str, model: Path, asked: argparse.Namespace) -> dict[str, Any]:
    rows = (
        micro.pairs(asked.steps * asked.batch)
        if asked.model == "micro"
        else pairs(asked.steps * asked.batch, asked.words)
    )
    rows = micro.messages(rows) if name == "sft" else rows
    method = plugins.find_plugin("train", name, Method)
    more = {"r": 0} if asked.model == "micro" else {}
    options = method.options(max_steps=asked.steps, batch_size=asked.batch, max_length=1024, **more)
    seen: dict[str, list[tuple[float, float]]] = {"cai": [], "trl": []}
    for turn in range(asked.repeats + 1):
        for who, work in (("cai", ours), ("trl", bare)) if turn % 2 else (("trl", bare), ("cai", ours)):
            with tempfile.TemporaryDirectory() as folder:
                work(name, Job(model, rows, [], Path(folder), 0, False, lambda line: None), options)
            if turn:
                seen[who].append(TIMES[-1])
    wall, cpu = (
        {who: median(one[place] for one in all_) / asked.steps for who, all_ in seen.items()} for place in (0, 1)
    )
    return {"wall": wall, "cpu": cpu, "ratio": cpu["cai"] / cpu["trl"], "wall_ratio": wall["cai"] / wall["trl"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--methods", nargs="+", default=["sft", "reward", "dpo"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    timed()
    with tempfile.TemporaryDirectory() as folder:
        model = micro.start(Path(folder)) if asked.model == "micro" else model_folder(asked.model)[0]
        found = {}
        for name in asked.methods:
            found[name] = measure(name, model, asked)
            print(
                f"{name}: cai {found[name]['cpu']['cai']:.4f}, TRL {found[name]['cpu']['trl']:.4f} CPU s/step, "
                f"ratio {found[name]['ratio']:.3f}, by the wall {found[name]['wall_ratio']:.3f}",
                flush=True,
            )
    if asked.json:
        said = {key: value for key, value in vars(asked).items() if key != "json"}
        asked.json.write_text(
            json.dumps({"machine": platform.processor() or platform.machine(), **said, "methods": found}, indent=1)
            + "\n"
        )


if __name__ == "__main__":
    main()
