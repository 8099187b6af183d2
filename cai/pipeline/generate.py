"""The hall: prompts -> drafts -> traces -> pairs -> exported rows -> report, read top to bottom.

Workers are depth-first: each takes one prompt through its whole life before it takes the next, so the first trace is
finished long before the last draft is begun, and only as many prompts are in memory as there are workers.

Left out on purpose: retry and throttling (a backend's), what a question looks like (a template's), what a stage does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cai.audit.subjects import audit as auditing
from cai.constitution import principles as constitution
from cai.core import config as outside
from cai.core import plugins
from cai.core.concurrency import crowd as _together
from cai.core.concurrency import turn
from cai.core.errors import BudgetReached, CallFailed, Mistake
from cai.core.plugin_types import Backend
from cai.core.types import Constitution, Failure, Message, Model, Prompt, Step, Trace
from cai.data import prompts as sources
from cai.gates.apply.gate import gate_draft, gate_revision
from cai.judges.panel.panel import Panel
from cai.pipeline import export as dataset
from cai.pipeline import manifest
from cai.pipeline import pairs as labelling
from cai.pipeline.pairs import Sampler
from cai.pipeline.stages.critique import body, critique, worked
from cai.pipeline.stages.draft import draft
from cai.pipeline.stages.revise import revise
from cai.pipeline.stages.stage import Round, Stage
from cai.runs import folder as runs
from cai.runs import recipe
from cai.runs.budget import Budget, Price, listed_price
from cai.runs.folder import Manifest, Run, Spool
from cai.runs.journal import Journal, Journaled, Tally, Unasked
from cai.runs.progress import Progress as Progress
from cai.runs.recipe import Choice, Recipe
from cai.templates import template as templates

Counts = dict[str, dict[str, int]]


_LOOPBACK = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)", re.IGNORECASE)
Way = Callable[[Model], Model] | None
"""What stands between the journal and a model: nothing, or what asks it in another way or not at all."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run works with: the recipe, its constitution, and a stage for each kind of call."""

    recipe: Recipe
    constitution: Constitution
    draft: Stage
    critique: Stage
    revise: Stage
    models: dict[str, Journaled]
    samplers: tuple[Sampler, ...] = ()
    """Who answers, in a run that compares samples instead of revising."""
    panel: Panel | None = None
    """Who judges pairs; None: nobody does."""

    @property
    def calls(self) -> int:
        """Calls that one trace takes, if no round ends early."""
        rounds = 0 if self.samplers else self.recipe.critique.rounds
        return 1 + rounds * (2 if self.recipe.critique.ask else 1)

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
        outcome = labelling.Outcome()
        try:
            said["counts"] = await _trace_all(work, where, failures, outcome.kinds, progress)
            said |= await _pair_all(work, where, failures, outcome, said["counts"], progress)
            if work.panel:
                progress.begin("judge card")
                said["judge"] = await labelling.facts(work.panel, where, said["models"])
            said["status"] = "finished"
        finally:
            failures.finish()
            await work.close()
            said |= {
                "failures": dict(outcome.kinds),
                "calls": _calls(progress),
                "seconds": round(time.time() - started, 2),
            }
            runs.write_json(where.path / "manifest.json", said)
        progress.stage = "exports"
        said["exports"] = _export(chosen, where, chosen.export.formats)
        # last, because it takes numpy, which the rest of a run against an endpoint has no use for
        said |= {} if work.samplers else manifest.lengths(outcome.before, outcome.after)
        said["seconds"] = round(time.time() - started, 2)
        runs.write_json(where.path / "manifest.json", said)
        if chosen.audit:
            progress.stage = "audit"
            auditing.kept(where, chosen.audit)
        report(where, progress)
    return said


async def estimate(chosen: Recipe, where: Run, sample: int = 0) -> dict[str, float | None]:
    """Calls `answered` already and `new` at most, with tokens and cost at the mean of the answered ones.

    Asks nothing, unless `sample` prompts may be asked to measure by; those answers are kept like any other.
    """
    progress = Progress()
    prompts = new = 0
    with Journal(where.path.parent / "journal.sqlite") as journal:
        if sample:
            await _ask_first(sample, prepare(chosen, journal, Progress()))
        work = prepare(chosen, journal, progress, by=Unasked)
        for prompt in sources.read(chosen.prompts):
            if isinstance(prompt, Failure):
                continue
            prompts += 1
            before = progress.found
            lives = await _lives(work, prompt)
            whole = sum(_calls_of(life) for life in lives if isinstance(life, Trace))
            if unasked := sum(isinstance(life, Failure) and life.kind == "unasked" for life in lives):
                new += unasked * work.calls - (progress.found - before - whole)
            new += await labelling.new_calls(chosen, work.panel, lives) if work.panel else 0
        answered = progress.found
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


def _calls_of(trace: Trace) -> int:
    return 1 + sum((step.critique is not None) + (step.revision is not None) for step in trace.steps)


async def ask_all(chosen: Recipe, where: Run, by: Way) -> None:
    """Take every prompt as far as it gets when models are asked `by` another way; writes no rows."""
    with Journal(where.path.parent / "journal.sqlite") as journal:
        work = prepare(chosen, journal, Progress(), by=by)
        try:
            for prompt in sources.read(chosen.prompts):
                if isinstance(prompt, Prompt):
                    await _lives(work, prompt)
        finally:
            await work.close()


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
    chosen: Recipe, journal: Journal, progress: Progress, budget: Budget | None = None, *, by: Way = None
) -> Work:
    """Load and open everything before the first call, so that a mistake costs nothing. Raises Mistake."""
    principles = constitution.load(chosen.constitution)
    auditing.options(asked=chosen.audit)
    loaded = {stage: templates.load(stage, chosen.templates[stage]) for stage in recipe.STAGES}
    if chosen.critique.stop_when_clean and not loaded["critique"].header.verdict:
        fix = "set critique.stop_when_clean: false, or use a template that declares `verdict: true`"
        raise Mistake(loaded["critique"].name, "asks for no verdict, so no critique can be clean", fix)
    critic = {} if chosen.sample else {"critic": chosen.critic or chosen.writer}
    models = open_all({"writer": chosen.writer} | critic | labelling.roles(chosen), journal, progress, budget, by=by)
    settings = {"draft": chosen.draft, "critique": chosen.critique, "revise": chosen.revise}
    asked = {"draft": "writer", "critique": "critic", "revise": "writer"}
    stages = {
        name: Stage(
            name,
            models.get(asked[name], models["writer"]),
            each,
            settings[name].sampling(each.header.stop),
            chosen.seed,
        )
        for name, each in loaded.items()
    }
    samplers = labelling.samplers(chosen, models, loaded["draft"])
    panel = labelling.panel(chosen, principles, models)
    return Work(chosen, principles, **stages, models=models, samplers=samplers, panel=panel)


def open_all(
    roles: Mapping[str, Choice], journal: Journal, progress: Progress, budget: Budget | None, *, by: Way = None
) -> dict[str, Journaled]:
    """The model of each role, asked through the journal; roles of the same choice share one. Raises Mistake."""
    models: dict[str, Journaled] = {}
    for role, choice in roles.items():
        if twins := [models[other] for other in models if roles[other] == choice]:
            models[role] = twins[0]
            continue
        price = _price(choice, budget)
        model = open_model(choice, role)
        progress.tallies[role] = Tally()
        models[role] = journal.through(by(model) if by else model, progress.tallies[role], budget, price)
    progress.status = lambda: _status(models)
    return models


def open_model(choice: Choice, role: str) -> Any:
    """The Model a recipe chose, its options checked by its own backend. Raises Mistake."""
    backend = plugins.find("backends", choice.backend, Backend)
    return backend.open(outside.noun(outside.Document(f"recipe: {role}", choice.options, None), backend.options))


def _price(choice: Choice, budget: Budget | None) -> Price | None:
    price = choice.price
    if price is None and not _LOOPBACK.match(str(choice.options.get("base_url", ""))):
        # what this machine serves is in no price list, whatever it is called
        price = listed_price(str(choice.options.get("model", "")))
    if price is None and budget and budget.max_cost is not None:
        fix = "add `price: {input: ..., output: ...}` (per million tokens) to the model in the recipe"
        raise Mistake("--max-cost", f"the price of {choice.options.get('model', choice.backend)} is not known", fix)
    return price


def _status(models: dict[str, Journaled]) -> Mapping[str, float]:
    total: Counter[str] = Counter()
    for model in _distinct(models).values():
        total.update(model.status())
    return total


async def _trace_all(work: Work, where: Run, failed: Spool[Failure], kinds: Counter[str], progress: Progress) -> Counts:
    """Take every prompt through its life; the counts of each stage, which must add up."""
    progress.begin("traces", sources.count(work.recipe.prompts))
    traces = Spool(where.path / "traces.jsonl", Trace)
    stages: Counter[str] = Counter()
    prompts = enumerate(sources.read(work.recipe.prompts))
    rows, stopped = 0, list[BudgetReached]()

    async def worker() -> None:
        nonlocal rows
        for position, prompt in prompts:
            turn.set(position)
            try:
                lives = [prompt] if isinstance(prompt, Failure) else await _lives(work, prompt)
            except BudgetReached as error:  # the others finish the calls they have in flight: those are paid
                return stopped.append(error)
            rows += 1
            losses = [life for life in lives if isinstance(life, Failure)]
            traces.put(position, [life for life in lives if isinstance(life, Trace)])
            failed.put(position, losses)
            for loss in losses:
                stages[loss.stage] += 1
                kinds[loss.kind] += 1
                progress.failed += loss.kind not in manifest.HARMLESS
            progress.done += 1
            if stopped:
                return

    try:
        await _together(worker, max(model.concurrency for model in work.models.values()))
    finally:
        traces.finish()
    if stopped:
        raise stopped[0]
    return manifest.reconciled(work.recipe, rows, stages, traces.rows)


async def _lives(work: Work, prompt: Prompt) -> list[Trace | Failure]:
    if work.samplers:
        return await labelling.samples(work.recipe, work.samplers, prompt)
    lives = list[Trace | Failure]()
    for sample in range(work.recipe.draft.samples):
        lives.append(await _trace(work, prompt, sample))  # a comprehension would be one coroutine more
    return lives


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


async def _pair_all(
    work: Work, where: Run, failed: Spool[Failure], outcome: labelling.Outcome, counts: Counts, progress: Progress
) -> Manifest:
    """Second pass, over the rows on disk: pairs, their labels, and what the gates did."""
    if work.panel:
        progress.begin("labels", counts["read" if work.samplers else "revise"]["out"])
    start = counts["read"]["in"]
    await labelling.pair_all(work.recipe, where, work.panel, outcome, failed=failed, start=start, tick=progress.tick)
    counts |= outcome.stages(judged=work.panel is not None)
    return outcome.noticed


def export(chosen: Recipe, where: Run, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Write a finished run's rows again in these formats; rows by split. Raises Mistake."""
    with where.locked():
        return _export(chosen, where, names)


def _export(chosen: Recipe, where: Run, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    split = dataset.make_split(chosen.export.test_share, chosen.seed)
    return {name: dataset.write(where, name, split=split) for name in names}


def report(where: Run, progress: Progress) -> None:
    """Build the page of a run anew."""
    from cai.report import run_page as page

    progress.stage = "report"
    runs.write_text(where.path / "report.html", page.build(where))


def write_recipe(chosen: Recipe, path: Path) -> None:
    """The recipe with every default written out; it runs as it stands."""
    from io import BytesIO

    from ruamel.yaml import YAML

    text = BytesIO()
    YAML(typ="safe", pure=True).dump(chosen.model_dump(mode="json", by_alias=True), text)
    runs.write_text(path, text.getvalue().decode())


def _provenance(work: Work, where: Run, started: float) -> Manifest:
    stages = (work.draft,) if work.samplers else (work.draft, work.critique, work.revise)
    asked = {stage.name: stage.template for stage in stages}
    identities = {role: dict(model.identity) for role, model in _distinct(work.models).items()}
    return manifest.provenance(work.recipe, work.constitution, asked, where.path, started) | {"models": identities}


def _distinct(models: dict[str, Journaled]) -> dict[str, Journaled]:
    first: dict[int, str] = {}
    for role, model in models.items():
        first.setdefault(id(model), role)
    return {role: models[role] for role in first.values()}


def _calls(progress: Progress) -> dict[str, dict[str, int]]:
    return {role: asdict(tally) for role, tally in progress.tallies.items()}


def tokenizer(where: Run, name: str) -> str:
    """The folder of the tokenizer to check exports with: the one named, else the run's own writer's. Raises Mistake."""
    from cai.backends.local import weights as _weights

    writer = where.manifest["models"]["writer"]
    if not name and writer.get("engine") != "transformers":
        fix = "add --tokenizer: a known model, a Hugging Face id or a folder"
        raise Mistake("--check", f"a {writer.get('engine')} model has no tokenizer here", fix)
    return str(_weights.find_weights(name or writer["model"]).folder)
