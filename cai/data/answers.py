"""Which answers of a run are learned from: those of a trace that the constitution accepts, and the sides of a pair.

Exports and training rows both select by these functions, so that they agree.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cai.core.types import GateHit, Pair, Prompt, Trace

LABEL_ABOVE = 0.5
"""Pairs with p_chosen at or below give no labels: a tie has no good answer, and a doubtful revision no bad draft."""


@dataclass(frozen=True, slots=True)
class AcceptedAnswer:
    """An answer that may be imitated, and where it comes from."""

    text: str
    principles: tuple[str, ...]
    """Ids of the principles of all rounds up to it."""
    source: str
    """`revision:2`: the answer after the second round; `revision:0`: the draft."""
    gates: tuple[GateHit, ...]


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """One side of a pair."""

    pair: Pair
    text: str
    good: bool


def accepted_answers(trace: Trace) -> list[AcceptedAnswer]:
    """The answers of a trace that the constitution accepts, the last one final.

    Those are the revisions that no gate rejected. The draft is one only where every critique of it found no fault; a
    draft whose revisions were all rejected is not, and gives no answer.
    """
    kept = [step for step in trace.steps if step.answer is not None]
    if not kept and trace.steps and all(step.verdict == "clean" for step in trace.steps):
        cleared_by = tuple(step.principle for step in trace.steps)
        return [AcceptedAnswer(trace.draft.text, cleared_by, "revision:0", trace.gates)]
    principles = tuple(step.principle for step in kept)
    return [
        AcceptedAnswer(step.answer or "", principles[:count], f"revision:{step.round + 1}", step.gates)
        for count, step in enumerate(kept, 1)
    ]


def labelled_answers(pairs: Iterable[Pair], split: Callable[[Prompt], str]) -> Iterator[tuple[str, LabelledAnswer]]:
    """(split, answer) for both sides of each pair, in the order that KTO needs (arXiv 2402.01306).

    TRL reads these rows in order and estimates the KL term by giving each prompt of a batch its neighbour's answer.
    With all good answers first it would train on one label at a time, and an answer beside the other answer to its own
    prompt would be no mismatch. Each rejected answer therefore waits until another prompt's chosen one has been
    yielded. As many rejected answers wait in memory as one prompt has pairs.
    """
    waiting: defaultdict[str, deque[LabelledAnswer]] = defaultdict(deque)
    for pair in pairs:
        if pair.p_chosen <= LABEL_ABOVE:
            continue
        name = split(pair.prompt)
        rejected = waiting[name]
        yield name, LabelledAnswer(pair, pair.chosen, True)
        if rejected and rejected[0].pair.prompt.id != pair.prompt.id:
            yield name, rejected.popleft()
        rejected.append(LabelledAnswer(pair, pair.rejected, False))
    for name, rejected in waiting.items():
        yield from ((name, answer) for answer in rejected)
