"""Count a run in one pass over its rows, and note by digest which traces deserve to be looked at.

Memory holds three small numbers a trace and bounded samples of keys, never the texts.

Left out on purpose: counting again what the manifest counts (stages, gates, calls).
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from cai.core.seeds import digest
from cai.core.types import Failure, Trace
from cai.runs.folder import Run

NAMED = 3
"""Examples named beside each kind of failure."""


class KeySample:
    """The `limit` smallest keys offered: chance, but the same whatever the order they come in."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.keys: list[str] = []

    def offer(self, key: str) -> None:
        if (len(self.keys) < self._limit or key < self.keys[-1]) and key not in self.keys:
            insort(self.keys, key)
            del self.keys[self._limit :]


@dataclass(slots=True)
class DrawnPrinciple:
    """What became of the steps in which one principle was drawn."""

    steps: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    changes: array[int] = field(default_factory=lambda: array("l"))
    """Words of the accepted revision minus words of the answer before it."""


@dataclass(slots=True)
class Lost:
    """Failures of one kind in one stage, and a few of them with their keys, drawn by key as the traces are."""

    count: int = 0
    examples: list[tuple[str, Failure]] = field(default_factory=list)

    def add(self, key: str, failure: Failure) -> None:
        self.count += 1
        insort(self.examples, (key, failure), key=itemgetter(0))
        del self.examples[NAMED:]


class RunTally:
    """The numbers of a run, and the keys of the traces to show."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._any = KeySample(limit)
        self._marked: dict[str, KeySample] = defaultdict(lambda: KeySample(limit))
        self.traces = 0
        self.drafts, self.finals = array("l"), array("l")
        self._keys = array("Q")
        self.principles: dict[str, DrawnPrinciple] = defaultdict(DrawnPrinciple)
        self.lost: dict[tuple[str, str], Lost] = defaultdict(Lost)

    @property
    def keys(self) -> Iterator[str]:
        """The key of each trace, in the order of the rows."""
        return (f"{number:012x}" for number in self._keys)

    def chosen(self) -> list[str]:
        """Keys to show, most wanted first: half shared by what was noticed (gates, failures), the rest any trace."""
        share = max(1, self._limit // 2 // max(1, len(self._marked)))
        noticed = [key for mark in sorted(self._marked) for key in self._marked[mark].keys[:share]]
        return list(dict.fromkeys([*noticed, *self._any.keys]))[: self._limit]

    def mark(self, mark: str, key: str) -> None:
        self._marked[mark].offer(key)

    def failure(self, failure: Failure) -> None:
        own = key(failure.id, failure.sample)
        self.lost[failure.stage, failure.kind].add(own, failure)
        if failure.stage == "pair":  # only then is there a trace to show
            self.mark(failed(failure.kind), own)

    def trace(self, trace: Trace) -> None:
        self.traces += 1
        own = key(trace.prompt.id, trace.sample)
        self._keys.append(int(own, 16))
        self._any.offer(own)
        for mark in gate_marks(trace):
            self.mark(mark, own)
        self.drafts.append(count_words(trace.draft.text))
        self.finals.append(count_words(trace.final))
        self._steps(trace)

    def _steps(self, trace: Trace) -> None:
        before = self.drafts[-1]
        for step in trace.steps:
            drawn = self.principles[step.principle]
            drawn.steps += 1
            drawn.verdicts[step.verdict or "none"] += 1
            if step.answer is not None:
                after = count_words(step.answer)
                drawn.accepted += 1
                drawn.changes.append(after - before)
                before = after


def tally_run(run: Run, limit: int) -> RunTally:
    """One pass over every row of `run`; at most `limit` traces will be shown."""
    tally = RunTally(limit)
    for failure in run.failures():
        tally.failure(failure)
    for pair in run.pairs():
        for hit in pair.gates:
            tally.mark(f"gate:{hit.gate}", key(pair.prompt.id, pair.sample))
    for trace in run.traces():
        tally.trace(trace)
    return tally


def key(prompt: str, sample: int) -> str:
    """Names one trace, in the page and in its links: part of a digest, safe whatever the prompt's id contains."""
    return digest(prompt, sample)[:12]


def gate_marks(trace: Trace) -> Iterator[str]:
    """Marks of the gates that noticed something in a trace."""
    for hits in (trace.gates, *(step.gates for step in trace.steps)):
        for hit in hits:
            yield f"gate:{hit.gate}"


def failed(kind: str) -> str:
    """The mark of a kind of failure; a gate's is the same whether it dropped, tagged or repaired."""
    return kind if kind.startswith("gate:") else f"failure:{kind}"


def count_words(text: str) -> int:
    """Length in words, as the gates count it: pieces between white space."""
    return len(text.split())
