"""The hall: prompts -> drafts -> traces -> pairs -> exported rows -> report, read top to bottom.

Workers are depth-first: each takes one prompt through its whole life before it takes the next, so the first trace is
finished long before the last draft is begun, and only as many prompts are in memory as there are workers.

Left out on purpose: retry and throttling (a backend's), what a question looks like (a template's), what a stage does.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cai import constitution, dataset, manifest, outside, plugins, recipe, runs, sources, templates
from cai.budget import Budget, Price, listed_price
from cai.errors import BudgetReached, CallFailed, Mistake
from cai.journal import Journal, Journaled, Tally, Unasked
from cai.recipe import Choice, Recipe
from cai.runs import Manifest, Run, Spool
from cai.stages import gate
from cai.stages._ask import Round, Stage
from cai.stages.critique import body, critique, worked
from cai.stages.draft import draft
from cai.stages.gate import gate_draft, gate_revision
from cai.stages.pair import pair
from cai.stages.revise import revise
from cai.types import Backend, Constitution, Failure, Message, Pair, Prompt, Step, Trace


@dataclass
class Progress:
    """How far a run is; the pipeline writes it, the command line shows it."""

    stage: str = "opening the model"
    total: int | None = None
    done: int = 0
    failed: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    status: Callable[[], Mapping[str, float]] = dict
    """What the models say of themselves: in flight, the limit found, how often they were told to wait."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run works with: the recipe, its constitution, and a stage for each kind of call."""

    recipe: Recipe
    constitution: Constitution
    draft: Stage
    critique: Stage
    revise: Stage
    models: dict[str, Journaled]

    @property
    def calls(self) -> int:
        """Calls that one trace takes, if no round ends early."""
        return 1 + self.recipe.critique.rounds * (2 if self.recipe.critique.ask else 1)

    async def close(self) -> None:
        """Give the models back."""
        await asyncio.gather(*(model.close() for model in _distinct(self.models).values()))


async def run(chosen: Recipe, where: Run, progress: Progress | None = None, budget: Budget | None = None) -> Manifest:
    """Do what the recipe says and leave it in the run folder. Raises Mistake, BudgetReached; what is done is kept."""
    progress, started = progress or Progress(), time.time()
    with where.locked(), Journal(where.path.parent / "journal.sqlite") as journal:
        work = prepare(chosen, journal, progress, budget)
        said = _provenance(work, where, started) | {"status": "interrupted", "counts": {}}
        write_recipe(chosen, where.path / "recipe.yaml")
        failures = Spool(where.path / "failures.jsonl", Failure)
        kinds = Counter[str]()
        try:
            said["counts"] = await _trace_all(work, where, failures, kinds, progress)
            said |= _pair_all(work, where, failures, kinds, said["counts"]) | {"status": "finished"}
        finally:
            failures.finish()
            await work.close()
            said |= {"failures": dict(kinds), "calls": _calls(progress), "seconds": round(time.time() - started, 2)}
            runs.write_json(where.path / "manifest.json", said)
        progress.stage = "exports"
        said["exports"] = _export(chosen, where, chosen.export.formats)
        said["seconds"] = round(time.time() - started, 2)
        runs.write_json(where.path / "manifest.json", said)
        _report(where, progress)
    return said


async def estimate(chosen: Recipe, where: Run, sample: int = 0) -> dict[str, float | None]:
    """Calls `answered` already and `new` at most, with tokens and cost at the mean of the answered ones.

    Asks nothing, unless `sample` prompts may be asked to measure by; those answers are kept like any other.
    """
    progress = Progress()
    prompts = answered = new = 0
    with Journal(where.path.parent / "journal.sqlite") as journal:
        if sample:
            await _ask_first(sample, prepare(chosen, journal, Progress()))
        work = prepare(chosen, journal, progress, ask=False)
        for prompt in sources.read(chosen.prompts):
            if isinstance(prompt, Failure):
                continue
            prompts += 1
            for number in range(chosen.draft.samples):
                before = answered
                made = await _trace(work, prompt, number)
                answered = sum(tally.found for tally in progress.tallies.values())
                if isinstance(made, Failure) and made.kind == "unasked":
                    new += work.calls - (answered - before)
        await work.close()
    tokens = sum(tally.prompt_tokens + tally.completion_tokens for tally in progress.tallies.values())
    costs = [model.cost for model in _distinct(work.models).values()]
    spent = None if None in costs else sum(cost or 0.0 for cost in costs)
    share = new / answered if answered else None
    return {
        "prompts": prompts,
        "answered": answered,
        "new": new,
        "new_tokens": None if share is None else round(tokens * share),
        "new_cost": None if share is None or spent is None else round(spent * share, 4),
    }


async def _ask_first(count: int, work: Work) -> None:
    prompts = (prompt for prompt in sources.read(work.recipe.prompts) if isinstance(prompt, Prompt))
    try:
        await asyncio.gather(*(_lives(work, prompt) for prompt in islice(prompts, count)))
    finally:
        await work.close()


async def one(chosen: Recipe, where: Run, text: str) -> Trace | Failure:
    """One prompt's life under a recipe, through the same journal as the runs. Raises Mistake."""
    with Journal(where.path.parent / "journal.sqlite") as journal:
        work = prepare(chosen, journal, Progress())
        try:
            return await _trace(work, Prompt("try", (Message("user", text),)), 0)
        finally:
            await work.close()


def prepare(
    chosen: Recipe, journal: Journal, progress: Progress, budget: Budget | None = None, *, ask: bool = True
) -> Work:
    """Load and open everything before the first call, so that a mistake costs nothing. Raises Mistake."""
    principles = constitution.load(chosen.constitution)
    loaded = {stage: templates.load(stage, chosen.templates[stage]) for stage in recipe.STAGES}
    if chosen.critique.stop_when_clean and not loaded["critique"].header.verdict:
        fix = "set critique.stop_when_clean: false, or use a template that declares `verdict: true`"
        raise Mistake(loaded["critique"].name, "asks for no verdict, so no critique can be clean", fix)
    models: dict[str, Journaled] = {}
    for role, choice in (("writer", chosen.writer), ("critic", chosen.critic or chosen.writer)):
        if role == "critic" and choice == chosen.writer:
            models[role] = models["writer"]
            continue
        price = _price(choice, budget)
        model = open_model(choice, role)
        progress.tallies[role] = Tally()
        models[role] = journal.through(model if ask else Unasked(model), progress.tallies[role], budget, price)
    progress.status = lambda: _status(models)
    settings = {"draft": chosen.draft, "critique": chosen.critique, "revise": chosen.revise}
    asked = {"draft": "writer", "critique": "critic", "revise": "writer"}
    stages = {
        name: Stage(name, models[asked[name]], each, settings[name].sampling(each.header.stop), chosen.seed)
        for name, each in loaded.items()
    }
    return Work(chosen, principles, **stages, models=models)


def open_model(choice: Choice, role: str) -> Any:
    """The Model a recipe chose, its options checked by its own backend. Raises Mistake."""
    backend = plugins.find("backends", choice.backend, Backend)
    return backend.open(outside.noun(outside.Document(f"recipe: {role}", choice.options, None), backend.options))


def _price(choice: Choice, budget: Budget | None) -> Price | None:
    price = choice.price or listed_price(str(choice.options.get("model", "")))
    if price is None and budget and budget.max_cost is not None:
        fix = "add `price: {input: ..., output: ...}` (per million tokens) to the model in the recipe"
        raise Mistake("--max-cost", f"the price of {choice.options.get('model', choice.backend)} is not known", fix)
    return price


def _status(models: dict[str, Journaled]) -> Mapping[str, float]:
    total: Counter[str] = Counter()
    for model in _distinct(models).values():
        total.update(model.status())
    return total


async def _trace_all(
    work: Work, where: Run, failed: Spool[Failure], kinds: Counter[str], progress: Progress
) -> dict[str, dict[str, int]]:
    """Take every prompt through its life; the counts of each stage, which must add up."""
    progress.stage, progress.total = "traces", sources.count(work.recipe.prompts)
    traces = Spool(where.path / "traces.jsonl", Trace)
    stages: Counter[str] = Counter()
    prompts = enumerate(sources.read(work.recipe.prompts))
    rows, stopped = 0, list[BudgetReached]()

    async def worker() -> None:
        nonlocal rows
        for position, prompt in prompts:
            try:
                lives = [prompt] if isinstance(prompt, Failure) else await _lives(work, prompt)
            except BudgetReached as error:  # the others finish the calls they have in flight: those are paid
                return stopped.append(error)
            rows += 1
            losses = [life for life in lives if isinstance(life, Failure)]
            traces.put(position, [life for life in lives if isinstance(life, Trace)])
            failed.put(position, losses)
            stages.update(loss.stage for loss in losses)
            kinds.update(loss.kind for loss in losses)
            progress.done += 1
            progress.failed += sum(loss.kind not in manifest.HARMLESS for loss in losses)
            if stopped:
                return

    try:
        await _together(worker, max(model.concurrency for model in work.models.values()))
    finally:
        traces.finish()
    if stopped:
        raise stopped[0]
    return manifest.reconciled(work.recipe, rows, stages, traces.rows)


async def _together(worker: Any, count: int) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # one line for a person; the others are the same, or cancelled by it


async def _lives(work: Work, prompt: Prompt) -> list[Trace | Failure]:
    return [await _trace(work, prompt, sample) for sample in range(work.recipe.draft.samples)]


async def _trace(work: Work, prompt: Prompt, sample: int) -> Trace | Failure:
    """One draft's life: drafted, then critiqued and revised round by round, each round on the current answer alone."""
    settings, stage = work.recipe, "draft"
    try:
        first = await draft(work.draft, prompt, sample)
        answer, steps = first.text, list[Step]()
        for number in range(settings.critique.rounds):
            principle = constitution.draw(work.constitution, prompt, round=number, seed=settings.seed, sample=sample)
            examples = worked(work.constitution, principle, settings.critique.examples)
            turn = Round(prompt, sample, number, answer, principle, examples)
            found = judged = None
            if settings.critique.ask:
                stage = "critique"
                found, judged = await critique(work.critique, turn)
            if settings.critique.stop_when_clean and judged == "clean":
                steps.append(Step(number, principle.id, found, judged))
                break
            stage = "revise"
            revision = await revise(work.revise, turn, body(found.text) if found else "")
            kept, hits = gate_revision(revision.text, answer, revision.finish, prompt, settings.gates)
            steps.append(Step(number, principle.id, found, judged, revision, kept, hits))
            answer = answer if kept is None else kept
    except CallFailed as error:
        return Failure(prompt.id, stage, error.kind, error.message, error.attempts, sample)
    except constitution.NoPrinciple as error:
        return Failure(
            prompt.id, "critique" if settings.critique.ask else "revise", "no_principle", str(error), 0, sample
        )
    seen = gate_draft(first.text, first.finish, prompt, settings.gates)
    return Trace(prompt, sample, first, tuple(steps), answer, seen)


def _pair_all(
    work: Work, where: Run, failed: Spool[Failure], kinds: Counter[str], counts: dict[str, dict[str, int]]
) -> Manifest:
    """Second pass, over the rows on disk: pairs, what the gates did, and what changed in length."""
    pairs = Spool(where.path / "pairs.jsonl", Pair)
    gates: dict[str, Counter[str]] = {}
    before, after = array("l"), array("l")
    tally = Counter[str]()
    for position, trace in enumerate(where.traces()):
        before.append(len(trace.draft.text.split()))
        after.append(len(trace.final.split()))
        gate.tallied((*trace.gates, *(hit for step in trace.steps for hit in step.gates)), gates)
        made = list(pair(trace, work.recipe.pairs, work.recipe.gates))
        good = [row for row in made if isinstance(row, Pair)]
        lost = [row for row in made if isinstance(row, Failure)]
        pairs.put(position, good)
        failed.put(counts["read"]["in"] + position, lost)
        gate.tallied((hit for row in good for hit in row.gates), gates)
        for loss in lost:
            gates.setdefault(loss.kind.removeprefix("gate:"), Counter())["drop"] += 1
        kinds.update(loss.kind for loss in lost)
        tally.update({"in": len(made), "out": len(good), "failed": len(lost)})
    pairs.finish()
    counts["pair"] = {key: tally[key] for key in ("in", "out", "failed")}
    return {"gates": {name: dict(actions) for name, actions in gates.items()}} | manifest.lengths(before, after)


def export(chosen: Recipe, where: Run, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Write a finished run's rows again in these formats; rows by split. Raises Mistake."""
    with where.locked():
        return _export(chosen, where, names)


def _export(chosen: Recipe, where: Run, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    split = dataset.make_split(chosen.export.test_share, chosen.seed)
    return {name: dataset.write(where, name, split=split) for name in names}


def _report(where: Run, progress: Progress) -> None:
    from cai.report import page

    progress.stage = "report"
    runs.write_text(where.path / "report.html", page.build(where))


def write_recipe(chosen: Recipe, path: Path) -> None:
    """The recipe with every default written out; it runs as it stands."""
    from io import BytesIO

    from ruamel.yaml import YAML

    text = BytesIO()
    YAML(typ="safe", pure=True).dump(chosen.model_dump(mode="json"), text)
    runs.write_text(path, text.getvalue().decode())


def _provenance(work: Work, where: Run, started: float) -> Manifest:
    asked = {stage.name: stage.template for stage in (work.draft, work.critique, work.revise)}
    identities = {role: dict(model.identity) for role, model in _distinct(work.models).items()}
    return manifest.provenance(work.recipe, work.constitution, asked, where.path, started) | {"models": identities}


def _distinct(models: dict[str, Journaled]) -> dict[str, Journaled]:
    return {role: model for role, model in models.items() if role == "writer" or model is not models["writer"]}


def _calls(progress: Progress) -> dict[str, dict[str, int]]:
    return {role: asdict(tally) for role, tally in progress.tallies.items()}


def tokenizer(where: Run, name: str) -> str:
    """The folder of the tokenizer to check exports with: the one named, else the run's own writer's. Raises Mistake."""
    from cai.backends import _weights

    writer = where.manifest["models"]["writer"]
    if not name and writer.get("engine") != "transformers":
        fix = "add --tokenizer: a known model, a Hugging Face id or a folder"
        raise Mistake("--check", f"a {writer.get('engine')} model has no tokenizer here", fix)
    return str(_weights.locate(name or writer["model"]).source)
