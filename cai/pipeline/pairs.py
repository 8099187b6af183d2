"""AI feedback in a run: who samples, who judges, and the second pass that makes pairs and has them judged.

The second pass goes over the rows on disk, one prompt at a time and several prompts at once; its rows are a function of
those rows and of the judges' answers, so that resuming, order and the number of workers change nothing.

Left out on purpose: opening models and writing manifests, which the pipeline does, and how a judge asks.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from math import comb

from cai.constitution.principles import NoPrinciple
from cai.core.concurrency import conversation, crowd, together
from cai.core.errors import BudgetReached, CallFailed, Mistake
from cai.core.types import Failure, Model, Pair, Prompt, Sampling, Trace
from cai.gates.apply.gate import OpenGates, count_hits
from cai.judges.panel.panel import Panel, label_pair, name
from cai.pipeline.stages.pair import pair
from cai.pipeline.stages.sample import best_and_worst, sample, sample_pairs
from cai.pipeline.stages.stage import Stage
from cai.runs.folder import Run, Spool
from cai.runs.manifest import StageCount
from cai.runs.recipe import Recipe
from cai.templates.template import Template

UNREAD = 16
"""Comparisons without a readable reply, before any with one, after which a run stops: none will have one."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """One writer at one temperature; `name` where there are several."""

    name: str
    stage: Stage
    gates: OpenGates


def open_samplers(
    recipe: Recipe, gates: OpenGates, models: Mapping[str, Model], template: Template, secret: bytes
) -> tuple[Sampler, ...]:
    """Everyone who answers in a run that samples, in the recipe's order; fence ids are made with `secret`."""
    if recipe.sample is None:
        return ()
    settings, stop = recipe.sample, template.header.stop
    writers = ["writer", *(f"writer-{number}" for number in range(2, 2 + len(settings.writers)))]
    several = len(writers) * len(settings.temperatures) > 1
    return tuple(
        Sampler(
            f"{writer}@{heat:g}" if several else "",
            Stage(
                "sample",
                models[writer],
                template,
                Sampling(heat, settings.top_p, settings.max_tokens, stop),
                recipe.seed,
                secret,
            ),
            gates,
        )
        for writer in writers
        for heat in settings.temperatures
    )


async def samples(recipe: Recipe, everyone: Iterable[Sampler], prompt: Prompt) -> list[Trace | Failure]:
    """All answers to one prompt, each a trace without a critique, or a failure."""
    each = recipe.sample.count if recipe.sample else 0
    turns = [sampler for sampler in everyone for _ in range(each)]
    return await together(_sampled(recipe, one, prompt, number) for number, one in enumerate(turns))


async def _sampled(recipe: Recipe, one: Sampler, prompt: Prompt, number: int) -> Trace | Failure:
    try:
        answer, cut = await sample(one.stage, prompt, number)
    except CallFailed as error:
        return Failure(prompt.id, "sample", error.kind, error.message, error.attempts, number)
    seen = one.gates.draft(answer.text, answer.finish, prompt)
    return Trace(prompt, number, answer, (), answer.text, cut + seen, one.name)


@dataclass(slots=True)
class Outcome:
    """What became of a run's pairs: counts that add up by stage, failures by kind, gates, and words per answer."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {"judge": Counter(), "pair": Counter()})
    kinds: Counter[str] = field(default_factory=Counter)
    gates: dict[str, Counter[str]] = field(default_factory=dict)
    ties: int = 0
    unread: int = 0
    """Comparisons whose replies could not be read, before the first that could; -1 from then on."""
    before: array[int] = field(default_factory=lambda: array("l"))
    after: array[int] = field(default_factory=lambda: array("l"))

    def stages(self, *, judged: bool) -> dict[str, StageCount]:
        """Counts of the stages there were, `in = out + failed`."""
        names = ("pair", "judge") if judged else ("pair",)
        return {name: StageCount(*(self.counts[name][key] for key in ("in", "out", "failed"))) for name in names}

    def trace(self, trace: Trace) -> None:
        """Count what the gates did to a trace, and its length from draft to final answer."""
        self.before.append(len(trace.draft.text.split()))
        self.after.append(len(trace.final.split()))
        count_hits(trace.gates, self.gates)
        for step in trace.steps:
            count_hits(step.gates, self.gates)

    def require_readable(self, judged: Iterable[Pair | Failure]) -> None:
        """Raises Mistake where none of the first UNREAD comparisons gave a reply that can be read."""
        for row in judged:
            if self.unread < 0 or isinstance(row, Pair):
                self.unread = -1 if isinstance(row, Pair) and row.verdict else self.unread
            elif row.kind == "unparsable":
                self.unread += 1
                if self.unread >= UNREAD:
                    what = f"none of the first {UNREAD} replies can be read as a verdict ({row.message})"
                    raise Mistake("judge", what, "use another judge, another template, or a model that follows it")

    def add(self, made: Iterable[Pair | Failure], rows: Iterable[Pair | Failure]) -> None:
        """Count one prompt's pairs: as they were `made`, and the `rows` that they became."""
        judge, pair = self.counts["judge"], self.counts["pair"]
        for row in made:
            if isinstance(row, Pair):
                judge["in"] += 1
                judge["out"] += 1
        for row in rows:
            if isinstance(row, Pair):
                pair["in"] += 1
                pair["out"] += 1
                count_hits(row.gates, self.gates)
                self.ties += row.verdict is not None and row.p_chosen == 0.5
                continue
            self.kinds[row.kind] += 1
            if row.stage == "judge":
                judge["out"] -= 1
                judge["failed"] += 1
                continue
            pair["in"] += 1
            pair["failed"] += 1
            if row.stage == "pair":
                self.gates.setdefault(row.kind.removeprefix("gate:"), Counter())["drop"] += 1


async def pair_all(
    recipe: Recipe, run: Run, gates: OpenGates, panel: Panel | None, outcome: Outcome,
    *, failed: Spool[Failure], start: int, tick: Callable[[], None],
) -> None:  # fmt: skip
    """Make the pairs of all traces on disk, have them judged where there is a panel, and write them.

    Failures go to `failed` from position `start` on. Raises BudgetReached; what is done by then is written.
    """
    pairs = Spool(run.path / "pairs.jsonl", Pair)
    groups = enumerate(_groups(recipe, run, gates, outcome))
    stopped: list[BudgetReached] = []

    async def worker() -> None:
        for position, made in groups:
            try:
                judged = await together(_judged(row, panel) for row in made) if panel else made
            except BudgetReached as error:  # the others finish the calls they have in flight: those are paid
                return stopped.append(error)
            rows = _picked(judged) if recipe.sample and recipe.pairs.pairing == "best_worst" else judged
            pairs.put(position, [row for row in rows if isinstance(row, Pair)])
            failed.put(start + position, [row for row in rows if isinstance(row, Failure)])
            outcome.add(made, rows)
            if panel:
                outcome.require_readable(judged)
            tick()
            if stopped:
                return

    try:
        await crowd(worker, panel.concurrency if panel else 1)
    finally:
        pairs.finish()
    if stopped:
        raise stopped[0]


def _groups(recipe: Recipe, run: Run, gates: OpenGates, outcome: Outcome) -> Iterator[list[Pair | Failure]]:
    """The pairs of each prompt's samples, or of each trace's draft and revisions, in the order of the rows."""
    # the samples of a prompt are compared with each other; a revised trace is a group of its own
    lone = count()
    for _, group in groupby(run.traces(), key=lambda trace: trace.prompt.id if recipe.sample else next(lone)):
        traces = list(group)
        for trace in traces:
            outcome.trace(trace)
        yield _made(recipe, gates, traces)


def _made(recipe: Recipe, gates: OpenGates, traces: Sequence[Trace]) -> list[Pair | Failure]:
    if recipe.sample:
        return list(sample_pairs(traces, recipe.pairs, gates, recipe.seed))
    return [row for trace in traces for row in pair(trace, recipe.pairs, gates)]


async def new_calls(recipe: Recipe, gates: OpenGates, panel: Panel, lives: Iterable[Trace | Failure]) -> int:
    """At most so many calls of the judges are not in the journal yet, for one prompt."""
    traces = [life for life in lives if isinstance(life, Trace)]
    made = _made(recipe, gates, traces) if traces else []
    judged = await together(_judged(row, panel) for row in made)
    unasked = sum(isinstance(row, Failure) and row.kind == "unasked" for row in judged)
    return (unasked + max(0, _expected(recipe) - len(made))) * panel.calls


def _expected(recipe: Recipe) -> int:
    """Pairs of one prompt, if nothing fails."""
    if recipe.sample is None:
        rounds = recipe.critique.rounds
        return recipe.draft.samples * (1 + rounds if recipe.pairs.rounds and rounds > 1 else 1)
    answers = recipe.sample.answers
    return {"adjacent": answers - 1, "random": 1}.get(recipe.pairs.pairing, comb(answers, 2))


async def _judged(made: Pair | Failure, panel: Panel) -> Pair | Failure:
    if isinstance(made, Failure):
        return made
    conversation.set(made.prompt.id)
    try:
        verdict = await panel.verdict(made.prompt, made.chosen, made.rejected, name(made))
    except CallFailed as error:
        return Failure(made.prompt.id, "judge", error.kind, error.message, error.attempts, made.sample)
    except NoPrinciple as error:
        return Failure(made.prompt.id, "judge", "no_principle", str(error), 0, made.sample)
    return label_pair(made, verdict, panel.settings)


def _picked(judged: Iterable[Pair | Failure]) -> list[Pair | Failure]:
    """The failures, and of all judged pairs the one of the best answer and the worst."""
    pairs = [row for row in judged if isinstance(row, Pair)]
    lost: list[Pair | Failure] = [row for row in judged if isinstance(row, Failure)]
    if not pairs:
        return lost
    why = "the best and the worst answer were not judged against each other"
    return [*lost, best_and_worst(pairs) or Failure(pairs[0].prompt.id, "pair", "unjudged", why)]
