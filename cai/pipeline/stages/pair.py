"""Pair: a trace's answers as chosen and rejected.

(draft rejected, last revision chosen) is not in the paper: it is the form that open recipes feed to DPO. Such pairs
are off-policy, and `source` marks them so.

Left out on purpose: labelling. Which of the two is better follows from the order of revision, not from a judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from cai.core.types import Failure, GateHit, Pair, Step, Trace
from cai.gates.apply.gate import OpenGates
from cai.runs.recipe import PairSettings


def pair(trace: Trace, pairs: PairSettings, gates: OpenGates) -> Iterator[Pair | Failure]:
    """The pairs of one trace; a pair that a gate turns away is a Failure of kind `gate:<name>`."""
    kept = [step for step in trace.steps if step.answer is not None]
    if not kept:
        yield _turned_away(trace, "no_revision", _why(trace))
        return
    spans: list[tuple[Step | None, list[Step]]] = [(None, kept)]
    if pairs.rounds and len(kept) > 1:
        spans += [(None, kept[:1]), *((before, [after]) for before, after in pairwise(kept))]
    for before, steps in spans:
        yield _paired(trace, before, steps, gates)


def _paired(trace: Trace, before: Step | None, steps: list[Step], gates: OpenGates) -> Pair | Failure:
    rejected = (before.answer if before else None) or trace.draft.text
    chosen = steps[-1].answer or ""
    hits = gates.pair(chosen, rejected, trace.prompt)
    if dropped := [hit for hit in hits if hit.action == "drop"]:
        return _turned_away(trace, dropped[0].gate, dropped[0].detail)
    first = before.round + 1 if before else 0
    return Pair(
        prompt=trace.prompt,
        sample=trace.sample,
        chosen=chosen,
        rejected=rejected,
        p_chosen=1.0,
        principles=tuple(step.principle for step in steps),
        source=f"revision:{first}>{steps[-1].round + 1}",
        gates=hits,
    )


def _turned_away(trace: Trace, gate: str, why: str) -> Failure:
    return Failure(trace.prompt.id, "pair", f"gate:{gate}", why, sample=trace.sample)


def _why(trace: Trace) -> str:
    reasons = [f"round {step.round + 1}: {hit.gate} ({hit.detail})" for step, hit in _turned(trace)]
    return "; ".join(reasons)[:500] or "every critique found the answer in order"


def _turned(trace: Trace) -> Iterator[tuple[Step, GateHit]]:
    """What was noticed about revisions; a critique's contradiction is no reason."""
    return ((step, hit) for step in trace.steps for hit in step.gates if step.revision and hit.gate != "contradiction")
