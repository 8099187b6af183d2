"""How fast the embedded model goes through a whole draft-critique-revise job, and what each technique contributes.

Side by side in one run, on the same threads: plain `generate` one call at a time, plain `generate` in static batches
of 8, and cai's engine in float32 and bfloat16, with and without prefix reuse. Every way answers greedily, so that the
texts can be compared; the float32 model also says how likely it finds each way's drafts, which is what rounding may
cost. Rounds are interleaved, because a machine is rarely alone; believe the ratios.

Left out on purpose: the pipeline's own costs (journal, gates, files), which other benches measure.

    .venv/bin/python bench/engine.py [--prompts 32 --repeats 3 --threads N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cai.backends.local.options import LocalOptions
from cai.backends.transformers import BACKEND
from cai.core.types import Message, Request, Sampling

PROMPTS = [json.loads(line)["prompt"] for line in (ROOT / "prompts/everyday.jsonl").read_text("utf-8").splitlines()]
WORKED_CASES = """Each answer is checked against one rule: an answer is brief, plain, and says nothing twice.

Question: How long do I boil an egg?
Answer: Boiling an egg is a wonderful skill to have, and there are many ways to go about it. In general, one may say \
that seven minutes gives a soft egg and ten minutes gives a hard one. So, to sum up, seven minutes is soft and ten is \
hard. I hope that this helps you on your cooking journey!
Critique: The answer opens with praise that nobody asked for, gives the two times twice, and closes with a wish. \
Seven minutes for soft and ten for hard is all that is needed.

Question: Which bin does a pizza box go into?
Answer: Clean cardboard goes into paper recycling. A box soaked with fat goes into the general waste.
Critique: The answer is brief and plain and covers both cases. Nothing needs to change.

Question: Should I water tomatoes in the evening?
Answer: Watering tomatoes is an important topic for every gardener, because water is life. Morning is better than \
evening, since leaves that stay wet overnight catch blight. It should be noted that the morning is therefore the best \
time, as was mentioned above, although it may of course depend on many different factors.
Critique: The first sentence is empty, the last one repeats the advice and then blurs it with factors that it does \
not name. Morning, because wet leaves catch blight at night, is the whole answer.

Question: {question}
Answer: {answer}
Critique:"""
REWRITE = "You rewrite texts. Say the same as the text that you are given, in fewer and plainer words."
MODEL = "smollm2-135m-instruct"
ALONE = "generate, one call at a time"
BASELINE = "generate, static batches of 8"
DRAFT = Sampling(temperature=0, max_tokens=80)
CRITIQUE = Sampling(temperature=0, max_tokens=64, stop=("\n",))
REVISE = Sampling(temperature=0, max_tokens=48)


def draft(question: str) -> Request:
    return Request((Message("user", question),), DRAFT)


def critique(question: str, answer: str) -> Request:
    text = WORKED_CASES.format(question=question, answer=" ".join(answer.split()))
    return Request((Message("user", text),), CRITIQUE, plain=True)


def revise(answer: str) -> Request:
    return Request((Message("system", REWRITE), Message("user", answer)), REVISE)


@dataclass(frozen=True)
class Chain:
    """What one prompt became, and how many tokens were generated for it."""

    draft: str
    critique: str
    revision: str
    tokens: int


@dataclass(frozen=True)
class Round:
    """One way's pass over its prompts; loading the model is not in the time."""

    chains: list[Chain]
    seconds: float

    @property
    def speed(self) -> float:
        return sum(chain.tokens for chain in self.chains) / self.seconds


class Plain:
    """transformers' own `generate`, the way most scripts call it: stage by stage, in batches padded on the left."""

    def __init__(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from cai.backends.local.quiet import quiet_transformers
        from cai.backends.local.weights import find_weights

        folder = find_weights(MODEL).folder
        with quiet_transformers():
            self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def run(self, prompts: Sequence[str], batch: int) -> Round:
        start = time.perf_counter()
        drafts = self.ask([draft(prompt) for prompt in prompts], batch)
        texts = [text for text, _ in drafts]
        critiques = self.ask([critique(*pair) for pair in zip(prompts, texts, strict=True)], batch)
        revisions = self.ask([revise(text) for text in texts], batch)
        seconds = time.perf_counter() - start
        answers = zip(drafts, critiques, revisions, strict=True)
        return Round([Chain(*(text for text, _ in three), sum(n for _, n in three)) for three in answers], seconds)

    def ask(self, requests: Sequence[Request], batch: int) -> list[tuple[str, int]]:
        parts = [requests[at : at + batch] for at in range(0, len(requests), batch)]
        return [answer for part in parts for answer in self.generate(part)]

    def generate(self, requests: Sequence[Request]) -> list[tuple[str, int]]:
        sampling = requests[0].sampling
        inputs = self.tokenizer(
            [self.render(request) for request in requests],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        )
        stops = {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer} if sampling.stop else {}
        output = self.model.generate(**inputs, max_new_tokens=sampling.max_tokens, do_sample=False, **stops)
        return [self.answer(ids, sampling) for ids in output[:, inputs.input_ids.shape[1] :].tolist()]

    def answer(self, ids: list[int], sampling: Sampling) -> tuple[str, int]:
        """The text, and its tokens up to and including the one that ended it: what runs on in a batch is waste."""
        end = self.tokenizer.eos_token_id
        ids = ids[: ids.index(end) + 1] if end in ids else ids
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        return text, len(ids)

    def render(self, request: Request) -> str:
        if request.plain:
            return request.messages[0].content
        turns = [asdict(message) for message in request.messages]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


async def ours(prompts: Sequence[str], options: LocalOptions) -> Round:
    """cai's engine, asked one request at a time by as many chains as there are prompts."""
    model = BACKEND.open(options)

    async def chain(prompt: str) -> Chain:
        first = await model.complete(draft(prompt))
        found = await model.complete(critique(prompt, first.text))
        last = await model.complete(revise(first.text))
        tokens = sum(answer.usage.completion_tokens for answer in (first, found, last))
        return Chain(first.text, found.text, last.text, tokens)

    start = time.perf_counter()
    chains = await asyncio.gather(*map(chain, prompts))
    seconds = time.perf_counter() - start
    await model.close()
    return Round(chains, seconds)


def ways() -> dict[str, Callable[[Sequence[str]], Round]]:
    """Name -> a pass over the prompts. Plain ways get fewer prompts: each batch of theirs costs the same."""
    plain = Plain()

    def engine(**options: Any) -> Callable[[Sequence[str]], Round]:
        return lambda prompts: asyncio.run(ours(prompts, LocalOptions(model=MODEL, **options)))

    return {
        ALONE: lambda prompts: plain.run(prompts[: max(1, len(prompts) // 16)], 1),
        BASELINE: lambda prompts: plain.run(prompts[: max(8, len(prompts) // 2)], 8),
        "cai float32": engine(dtype="float32", reuse_prefix=False),
        "cai float32 + prefix reuse": engine(dtype="float32"),
        "cai bfloat16": engine(dtype="bfloat16", reuse_prefix=False),
        "cai bfloat16 + prefix reuse": engine(dtype="bfloat16"),
    }


def default_way() -> str:
    """Which of the ways is what a recipe gets that says nothing."""
    model = BACKEND.open(LocalOptions(model=MODEL))
    asyncio.run(model.close())
    return f"cai {model.identity['dtype']} + prefix reuse"


async def likelihoods(prompts: Sequence[str], drafts: dict[str, list[str]]) -> dict[str, float]:
    """Mean log-probability per token that the float32 model gives to each way's drafts: what rounding may cost."""
    model = BACKEND.open(LocalOptions(model=MODEL, dtype="float32"))

    async def mean(texts: list[str]) -> float:
        asked = [model.score(draft(prompt), [text]) for prompt, text in zip(prompts, texts, strict=False) if text]
        scores = [score for (score,) in await asyncio.gather(*asked)]
        return sum(score.logprob for score in scores) / sum(score.tokens for score in scores)

    means = {name: await mean(texts) for name, texts in drafts.items()}
    await model.close()
    return means


def same(chains: Sequence[Chain], reference: Sequence[Chain]) -> str:
    """How many of the texts are the same as in the reference, chain by chain."""
    pairs = [
        (getattr(mine, stage), getattr(theirs, stage))
        for mine, theirs in zip(chains, reference, strict=False)
        for stage in ("draft", "critique", "revision")
    ]
    return f"{sum(mine == theirs for mine, theirs in pairs)}/{len(pairs)}"


def measure(prompts: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """All ways, interleaved, `repeats` times; one row of the table for each."""
    passes = ways()
    rounds: dict[str, list[Round]] = {name: [] for name in passes}
    for repeat in range(repeats):
        for name, run in passes.items():
            rounds[name].append(run(prompts))
            print(f"{repeat + 1}/{repeats} {name}: {rounds[name][-1].speed:.0f} tokens/s", file=sys.stderr)
    compared = len(rounds[BASELINE][0].chains)
    drafts = {name: [chain.draft for chain in done[0].chains[:compared]] for name, done in rounds.items()}
    quality = asyncio.run(likelihoods(prompts, {name: texts for name, texts in drafts.items() if name != ALONE}))
    base = [each.speed for each in rounds[BASELINE]]
    return [
        {
            "way": name,
            "tokens_per_second": statistics.median(each.speed for each in done),
            "ratio": statistics.median(each.speed / with_base for each, with_base in zip(done, base, strict=True)),
            "rounds": [round(each.speed, 1) for each in done],
            "prompts": len(done[0].chains),
            "tokens": sum(chain.tokens for chain in done[0].chains),
            "same_text": same(done[0].chains, rounds[BASELINE][0].chains),
            "repeatable": all(each.chains == done[0].chains for each in done),
            "draft_logprob": quality.get(name),
        }
        for name, done in rounds.items()
    ]


def show(rows: Sequence[dict[str, Any]], default: str) -> None:
    print(f"\n{'':32}{'tokens/s':>9}{'ratio':>7}{'same text':>11}{'draft logprob':>15}")
    for row in rows:
        name = row["way"] + (" *" if row["way"] == default else "")
        likely = "" if row["draft_logprob"] is None else f"{row['draft_logprob']:.4f}"
        print(f"{name:32}{row['tokens_per_second']:9.1f}{row['ratio']:7.2f}{row['same_text']:>11}{likely:>15}")
    speed = {row["way"]: row["ratio"] for row in rows}
    parts = {
        "batching without padding, rows replaced at once": ("cai float32", BASELINE),
        "prefix reuse, in float32": ("cai float32 + prefix reuse", "cai float32"),
        "bfloat16": ("cai bfloat16", "cai float32"),
        "prefix reuse, in bfloat16": ("cai bfloat16 + prefix reuse", "cai bfloat16"),
        "all together": (default, BASELINE),
    }
    print("\nWhat each technique multiplies the speed by:")
    for what, (with_it, without) in parts.items():
        print(f"  {what:50}{speed[with_it] / speed[without]:6.2f}")
    print(
        f"\n* the product's default here. Ratio: to {BASELINE}, in the same round; medians.\n"
        "Same text: of drafts, critiques and revisions, those equal to the same in float32. Draft logprob: nats per\n"
        "token of the drafts under the float32 model; the nearer the rows, the less rounding has cost."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="torch threads, for every way alike; 0: torch's choice")
    arguments = parser.parse_args()

    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    default = default_way()
    rows = measure(PROMPTS[: arguments.prompts], arguments.repeats)
    show(rows, default)
    result = {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability(), "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps({"default": default, **result}, indent=1))


if __name__ == "__main__":
    main()
