"""How many pairs a second the log-probability judge labels when principles share what is read before them.

Side by side in one run, float32, on the same threads: every question computed by itself, in one forward pass of plain
transformers over the whole text (its two options cost a few tokens more, from the kept keys and values), and cai's
engine, which reads conversation and answers once for all principles of an order. Probabilities are compared. Rounds are
interleaved, because a machine is rarely alone; believe the ratios, and on a busy machine those of CPU-seconds on one
thread. The bound is what the token counts alone allow.

Each pair has worked comparisons of its own, as in a run, so little is shared between pairs.

Left out on purpose: the journal and the rows, which bench/memory.py measures.

    .venv/bin/python bench/label.py [--pairs 8 --repeats 3 --threads N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cai.backends.local.options import LocalOptions
from cai.backends.transformers import BACKEND
from cai.constitution.principles import load_constitution
from cai.core.types import Message, Model, Prompt, Request, Score
from cai.judges.panel import open
from cai.judges.panel.panel import Panel
from cai.runs.recipe import Recipe

PRINCIPLES = (1, 4, 16)
Seconds = tuple[float, float]
"""Of the wall, and of the CPU."""


class Recorder:
    """A Model that notes what is asked of the one inside."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.identity, self.concurrency = model.identity, model.concurrency
        self.asked: list[tuple[Request, tuple[str, ...]]] = []
        self.scores: list[tuple[Score, ...]] = []

    async def score(self, request: Request, continuations: Any) -> tuple[Score, ...]:
        place = len(self.asked)
        self.asked.append((request, tuple(continuations)))
        self.scores.append(())
        self.scores[place] = await self._model.score(request, continuations)
        return self.scores[place]


def pairs(count: int) -> list[tuple[Prompt, str, str]]:
    """Answers and revisions out of the default constitution's worked cases, in turn with different prompts."""
    laws = load_constitution("default")
    cases = [case for one in laws.principles for case in one.examples if case.revision]
    cases += [case for case in laws.examples if case.revision]
    made = [
        (Prompt(f"p{n}", (Message("user", case.prompt),)), case.answer, case.revision or "")
        for n, case in enumerate(cases)
    ]
    return made[:count]


def panel(model: Any, principles: int) -> Panel:
    recipe = Recipe.model_validate(
        {"constitution": "default", "prompts": "everyday", "templates": "small",
         "writer": {"backend": "transformers"}, "judge": {"by": "logprob", "principles": principles}}
    )  # fmt: skip
    found = open.open_panel(recipe, load_constitution("default"), {"judge": model}, b"secret")
    assert found
    return found


async def shared(model: Any, contests: list[tuple[Prompt, str, str]], principles: int) -> Seconds:
    """Seconds for all pairs through the judge and the engine."""
    judge = panel(model, principles)
    started = clocks()
    await asyncio.gather(*(judge.verdict(prompt, one, other, "bench") for prompt, one, other in contests))
    return since(started)


def clocks() -> Seconds:
    """Now."""
    return time.perf_counter(), time.process_time()


def since(started: Seconds) -> Seconds:
    return time.perf_counter() - started[0], time.process_time() - started[1]


def one_by_one(
    questions: list[tuple[Request, tuple[str, ...]]], plain: Any, tokenizer: Any
) -> tuple[Seconds, list[tuple[float, ...]]]:
    """Seconds, and the options' log-probabilities, from one forward pass for each question's text."""
    import torch

    started, found = clocks(), []
    with torch.inference_mode():
        for request, options in questions:
            text = request.messages[0].content
            ids = tokenizer(text, return_tensors="pt").input_ids
            added = torch.tensor([tokenizer(option, add_special_tokens=False).input_ids for option in options])
            read = plain(input_ids=ids, use_cache=True, logits_to_keep=1)
            cache = read.past_key_values
            cache.batch_repeat_interleave(len(options))
            after = plain(input_ids=added[:, :-1], past_key_values=cache).logits
            logits = torch.cat([read.logits.expand(len(options), -1, -1), after], 1)
            logprobs = logits.log_softmax(-1).gather(-1, added[..., None])[..., 0].sum(-1)
            found.append(tuple(logprobs.tolist()))
    return since(started), found


def bound(questions: list[tuple[Request, tuple[str, ...]]], tokenizer: Any) -> float:
    """Tokens read one by one over tokens read when no text is read twice after the same beginning."""
    whole, beginnings = 0, set[int]()
    for request, _ in questions:
        state = 0
        for token in tokenizer(request.messages[0].content).input_ids:
            state = hash((state, token))
            beginnings.add(state)
            whole += 1
    return whole / len(beginnings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--principles", type=int, nargs="+", default=list(PRINCIPLES))
    given = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cai.backends.local.weights import find_weights

    if given.threads:
        torch.set_num_threads(given.threads)
    source = find_weights("smollm2-135m-instruct").folder
    tokenizer = AutoTokenizer.from_pretrained(source)
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    contests, rows = pairs(given.pairs), []
    for principles in given.principles:
        times: list[tuple[Seconds, Seconds]] = []
        worst = 0.0
        for _ in range(given.repeats):
            # a fresh engine each time: nothing is left over from the last round
            model = BACKEND.open(LocalOptions(dtype="float32"))
            recorder = Recorder(model)
            quick = asyncio.run(shared(recorder, contests, principles))
            asyncio.run(model.close())
            slow, found = one_by_one(recorder.asked, plain, tokenizer)
            times.append((slow, quick))
            for ours, theirs in zip(recorder.scores, found, strict=True):
                worst = max(worst, abs(odds([one.logprob for one in ours]) - odds(theirs)))
        slow_wall, slow_cpu, wall, cpu = (
            statistics.median(pair[side][clock] for pair in times) for side in (0, 1) for clock in (0, 1)
        )
        rows.append(
            {"principles": principles, "orders": 2, "pairs": len(contests), "questions": len(recorder.asked),
             "one_by_one_pairs_per_second": len(contests) / slow_wall, "shared_pairs_per_second": len(contests) / wall,
             "ratio": slow_wall / wall, "ratio_cpu": slow_cpu / cpu,
             "ratios": [slow[0] / quick[0] for slow, quick in times],
             "token_bound": bound(recorder.asked, tokenizer),
             "largest_difference_of_p": worst}
        )  # fmt: skip
        said(rows[-1], head=len(rows) == 1)
    Path(__file__).with_suffix(".json").write_text(
        json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2)
    )


def odds(logprobs: Any) -> float:
    from math import exp

    return float(1 / (1 + exp(logprobs[1] - logprobs[0])))


def said(row: dict[str, Any], *, head: bool) -> None:
    if head:
        print(
            "| principles x orders | one by one, pairs/s | shared, pairs/s | ratio (rounds) | of CPU-seconds | token bound | largest difference of p |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    rounds = ", ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    print(
        f"| {row['principles']} x 2 | {row['one_by_one_pairs_per_second']:.3f} | {row['shared_pairs_per_second']:.3f} "
        f"| {row['ratio']:.2f} ({rounds}) | {row['ratio_cpu']:.2f} | {row['token_bound']:.2f} | {row['largest_difference_of_p']:.1e} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
