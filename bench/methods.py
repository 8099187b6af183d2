"""All methods from the same start on the same rows of a task whose reward is known: what each costs and what it reaches.

The micro task (tests/micro.py): 64 words, answers worth +1 for kind words and -1 for rude and flattering ones, a start
that is worth about 0. Every method is given the same pairs, labelled by gold: SFT imitates the better answers, DPO, KTO
and ORPO learn from the pairs, and reinforcement goes through a reward model trained on them. Nothing but that reward
model is shown to reinforcement. Gold is measured on prompts that nobody trained on. Each method runs in a process of its
own; peak memory is what training added to it. Seconds are of training, reward model and all, on one thread; a machine is
rarely alone, so believe large ratios.

Left out on purpose: tuning each method to its best. Learning rates of reinforcement were chosen by looking at gold, without
a reward model, on these very seeds; those of the other methods were never varied. That favours reinforcement.

    .venv/bin/python bench/methods.py [--seeds 5 --pairs 480 --only dpo ppo]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import micro

from cai.core import plugins, stats
from cai.core.plugin_types import Job, Method

BASE: dict[str, Any] = {"r": 0, "device": "cpu", "batch_size": 32}
ONLINE: dict[str, Any] = {"max_steps": 60, "max_new_tokens": micro.LONGEST, "kl_horizon": 300}
SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 1e-3, "epochs": 4},
    "reward": {"learning_rate": 1e-3, "epochs": 8, "length": "none"},
    "dpo": {"learning_rate": 1e-3, "epochs": 4},
    "kto": {"learning_rate": 1e-3, "epochs": 4},
    "orpo": {"learning_rate": 1e-3, "epochs": 4},
    "ppo": {"learning_rate": 1e-3} | ONLINE,
    "rloo": {"learning_rate": 2e-3} | ONLINE,
    "grpo": {"learning_rate": 2e-3, "answers": 4, "kl_coef": 0.1} | ONLINE,
}
MODELS = {"sft": 1, "dpo": 2, "kto": 2, "orpo": 1, "ppo": 3, "rloo": 3, "grpo": 3}
"""Held at once with full fine-tuning: policy, start (for DPO and KTO only until its log-probabilities are kept), reward."""
STAGES = {"ppo": "reward + ppo", "rloo": "reward + rloo", "grpo": "reward + grpo"}


def rows(method: str, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs in the form that a method declares."""
    kind = plugins.find_plugin("train", method, Method).rows
    made = {"messages": micro.messages, "labels": micro.labels, "prompts": lambda pairs: micro.prompts()}
    return list(made[kind](pairs)) if kind in made else pairs


def train(method: str, job: Job, **more: Any) -> Path:
    """The folder of the trained model."""
    record = plugins.find_plugin("train", method, Method)
    given = replace(job, rows=rows(method, list(job.rows)), out=job.out / method)
    record.train(given, record.options(**(BASE | SETTINGS[method] | more)))
    return given.out / "model"


def one(method: str, seed: int, start: Path, out: Path, pairs: int) -> dict[str, float]:
    """One method, one seed."""
    job = Job(start, micro.pairs(pairs, seed=100 + seed), [], out, seed, False, lambda told: None)
    began = time.perf_counter()
    if method in STAGES:
        trained = train(method, job, rewards=str(train("reward", job)))
    else:
        trained = train(method, job)
    seconds = time.perf_counter() - began
    answers = micro.answers(trained, "test", each=16, seed=seed)
    return {
        "gold": fmean(micro.gold(answer) for _, answer in answers),
        "kl": micro.kl(trained, start, answers),
        "words": fmean(len(answer.split()) for _, answer in answers),
        "seconds": seconds,
    }


def resident() -> float:
    """MiB that this process held at most."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def alone(method: str, seeds: int, pairs: int) -> dict[str, Any]:
    """All seeds of one method in this process."""
    with tempfile.TemporaryDirectory() as folder:
        start = micro.start(Path(folder) / "start")
        if method == "start":
            answers = micro.answers(start, "test", each=16)
            golds = [micro.gold(answer) for _, answer in answers]
            return {"gold": fmean(golds), "words": fmean(len(answer.split()) for _, answer in answers)}
        one(method, 99, start, Path(folder) / "warm", 32)  # imports, and whatever is done once
        before = resident()
        runs = [one(method, seed, start, Path(folder) / str(seed), pairs) for seed in range(seeds)]
    golds = [run["gold"] for run in runs]
    sure = stats.interval(golds)
    return {
        "stages": STAGES.get(method, method), "gold": sure.value, "low": sure.low, "high": sure.high,
        "spread": pstdev(golds), "kl": fmean(run["kl"] for run in runs), "words": fmean(run["words"] for run in runs),
        "seconds": fmean(run["seconds"] for run in runs), "peak_mib": resident() - before, "models": MODELS[method],
        "seeds": runs,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=480)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(given.alone, given.seeds, given.pairs)))
        return
    print(
        "| method | stages | gold reward | spread over seeds | KL to the start | words | seconds | memory added, MiB | models in memory |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    found = {}
    for method in ("start", *given.only):
        command = [
            sys.executable,
            __file__,
            "--alone",
            method,
            "--seeds",
            str(given.seeds),
            "--pairs",
            str(given.pairs),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        found[method] = json.loads(done.stdout.splitlines()[-1])
        print(said(method, found[method]), flush=True)
    Path(__file__).with_suffix(".json").write_text(
        json.dumps({"seeds": given.seeds, "pairs": given.pairs, "settings": SETTINGS, "methods": found}, indent=2)
        + "\n"
    )


def said(method: str, row: dict[str, Any]) -> str:
    if method == "start":
        return f"| (start) | 0 | {row['gold']:.2f} | | 0 | {row['words']:.1f} | | | |"
    return (
        f"| {row['stages']} | {1 + (method in STAGES)} | {row['gold']:.2f} [{row['low']:.2f}, {row['high']:.2f}] "
        f"| {row['spread']:.3f} | {row['kl']:.1f} | {row['words']:.1f} | {row['seconds']:.1f} "
        f"| {row['peak_mib']:.0f} | {row['models']} |"
    )


if __name__ == "__main__":
    main()
