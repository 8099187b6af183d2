"""A reward model on people's preferences beside two baselines that cost nothing: always the longer, and a bag of words.

Rows are those of a pairs file, split by prompt; the bag of words is a ridge logistic regression on the differences of
word presence, fitted on the same training rows. Accuracies are on the same held-out pairs, differences are paired.

    python bench/reward.py PAIRS.jsonl [--out DIR] [-o max_length=256 ...]
"""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.optimize import minimize

from cai.backends.local.model_folders import model_folder
from cai.backends.local.reward_model import open_scorer
from cai.core import stats
from cai.core.config import overridden
from cai.core.types import Message
from cai.train.run import train as training
from cai.train.run.train import Order, _gathered, options_of

WORD = re.compile(r"[a-z']+")
RIDGE = 0.02


def said(row: dict[str, Any], side: str) -> str:
    return "\n".join(turn["content"] for turn in row[side])


def bag_of_words(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> list[float]:
    """Log-odds that chosen is better, for each test row."""
    found = [{side: set(WORD.findall(said(row, side).lower())) for side in ("chosen", "rejected")} for row in train]
    seen: dict[str, int] = {}
    for row in found:
        for word in row["chosen"] | row["rejected"]:
            seen[word] = seen.get(word, 0) + 1
    place = {word: number for number, word in enumerate(sorted(word for word, count in seen.items() if count > 2))}

    def difference(rows: list[dict[str, set[str]]]) -> Any:
        x = np.zeros((len(rows), len(place)))
        for number, row in enumerate(rows):
            for side, sign in (("chosen", 1), ("rejected", -1)):
                for word in row[side] & place.keys():
                    x[number, place[word]] += sign
        return x

    x = difference(found)

    def loss(weight: Any) -> tuple[float, Any]:
        d = x @ weight
        slope = -x.T @ (1 / (1 + np.exp(d))) / len(x) + 2 * RIDGE * weight
        return float(np.logaddexp(0, -d).mean() + RIDGE * (weight**2).sum()), slope

    weight = minimize(loss, np.zeros(len(place)), jac=True, method="L-BFGS-B").x
    words = [{side: set(WORD.findall(said(row, side).lower())) for side in ("chosen", "rejected")} for row in test]
    return list(difference(words) @ weight)


def right(d: float) -> float:
    return float(d > 0) + (d == 0) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-reward"))
    parser.add_argument("--held-out", type=float, default=1 / 3)
    parser.add_argument("-o", dest="options", action="append", default=[])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    options = overridden({}, tuple(asked.options))
    order = Order("reward", asked.pairs, asked.model, asked.out, options, held_out=asked.held_out)
    done = training.train(
        order, lambda line: print(line.get("step"), line.get("loss"), line.get("accuracy"), flush=True)
    )
    method, chosen = options_of("reward", options)
    rows = _gathered(order, method, chosen, model_folder(asked.model)[0])
    test = [row for row in rows.held_out if row["p_chosen"] != 0.5]
    scorer = open_scorer(asked.out / "model")
    turns = lambda row: tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])  # noqa: E731
    score = {side: scorer.scores([(turns(row), said(row, side)) for row in test]) for side in ("chosen", "rejected")}
    judged = {
        "reward model": [right(one - other) for one, other in zip(score["chosen"], score["rejected"], strict=True)],
        "bag of words": [right(d) for d in bag_of_words(rows.rows, test)],
        "always longer": [right(len(said(row, "chosen").split()) - len(said(row, "rejected").split())) for row in test],
    }
    said_all: dict[str, Any] = {
        "rows": asdict(done.rows),
        "seconds": done.seconds,
        "options": options,
        "accuracy": {},
        "reward model less": {},
    }
    for name, one in judged.items():
        said_all["accuracy"][name] = asdict(stats.interval(one))
        if name != "reward model":
            said_all["reward model less"][name] = asdict(stats.change(one, judged["reward model"]))
    print(json.dumps(said_all, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(said_all, indent=1) + "\n")


if __name__ == "__main__":
    main()
