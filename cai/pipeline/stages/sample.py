"""Sample: several answers to one prompt, by one writer or several, and which of them are compared.

Answers are put in an order drawn by digest. An order that means something, such as rising temperature, would hand a
judge with a preference for one place an opinion about the temperature.

Left out on purpose: judging. Which of two answers is better is for `stages/judge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise

from cai.core.seeds import uniform
from cai.core.types import Completion, Failure, GateHit, Pair, Prompt, Trace, sample_numbers
from cai.gates.apply.gate import OpenGates
from cai.pipeline.stages.stage import Stage
from cai.runs.recipe import PairSettings
from cai.templates.sandbox import turns


async def sample(stage: Stage, prompt: Prompt, number: int) -> tuple[Completion, tuple[GateHit, ...]]:
    """The answer to `prompt` with this number, and what was cut from it. Raises CallFailed."""
    return await stage.answer({"conversation": turns(prompt.messages)}, prompt.id, number)


def sample_pairs(traces: Sequence[Trace], pairs: PairSettings, gates: OpenGates, seed: int) -> Iterator[Pair | Failure]:
    """The pairs of one prompt's answers that are to be judged, p_chosen 0.5 for now; or why there is none.

    A pair that a gate turns away is a Failure of kind `gate:<name>`: no judge is asked about it.
    """
    if len(traces) < 2:
        prompt, number = traces[0].prompt.id, traces[0].sample
        yield Failure(prompt, "pair", "single_answer", "the other answers failed", sample=number)
    for one, other in _chosen(presented(traces, seed), pairs.pairing):
        hits = gates.pair(one.final, other.final, one.prompt)
        if dropped := [hit for hit in hits if hit.action == "drop"]:
            gate, why = dropped[0].gate, dropped[0].detail
            yield Failure(one.prompt.id, "pair", f"gate:{gate}", why, sample=one.sample)
            continue
        writers = (one.writer, other.writer) if one.writer else ()
        source = f"sample:{other.sample}>{one.sample}"
        yield Pair(one.prompt, one.sample, one.final, other.final, 0.5, (), source, hits, writers=writers)


def presented(traces: Iterable[Trace], seed: int) -> list[Trace]:
    """The answers in an order that has nothing to do with who wrote them, when, or how hot."""
    return sorted(traces, key=lambda trace: uniform(seed, trace.prompt.id, "presented", trace.sample))


def _chosen(shown: Sequence[Trace], pairing: str) -> Iterable[tuple[Trace, Trace]]:
    if pairing == "adjacent":
        return pairwise(shown)
    if pairing == "random":
        return pairwise(shown[:2])  # the order is chance already
    return combinations(shown, 2)


def best_and_worst(judged: Sequence[Pair]) -> Pair | None:
    """The judged pair of the answer that beats the others most and the one that does least; None: it was not judged.

    An answer's strength is its mean probability of beating another. Where the judge prefers the weaker one of the two
    head to head, p_chosen is below 0.5: it is the judge's probability for this pair, not the conclusion.
    """
    strengths: dict[int, list[float]] = {}
    for pair in judged:
        for number, p in zip(sample_numbers(pair), (1 - pair.p_chosen, pair.p_chosen), strict=True):
            strengths.setdefault(number, []).append(p)
    order = sorted(strengths, key=lambda number: (-sum(strengths[number]) / len(strengths[number]), number))
    wanted = {order[0], order[-1]} if order else set()
    return next((pair for pair in judged if set(sample_numbers(pair)) == wanted), None)
