"""Prompts -> drafts -> traces -> pairs -> exported rows -> report, read top to bottom.

Workers are depth-first: each takes one prompt through its whole life before it takes the next, so the first trace is
finished long before the last draft is begun, and only as many prompts are in memory as there are workers.

Left out on purpose: retry and throttling (a backend's), what a question looks like (a template's), what a stage does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cai.audit.subjects.audit import audit_finished_run, probe_options
from cai.checks.run.check import check_pairs
from cai.checks.run.options import open_checks
from cai.constitution.principles import NoPrinciple, draw_principle, load_constitution
from cai.core.concurrency import conversation, crowd, turn
from cai.core.errors import BudgetReached, CallFailed, Mistake
from cai.core.plugins import NotLoaded
from cai.core.types import Completion, Constitution, Failure, GateHit, Prompt, Step, Trace
from cai.data.prompts import count_prompts, read_prompts
from cai.data.splits import make_split
from cai.gates.apply.gate import OpenGates, open_gates
from cai.judges.panel.open import extra_roles, judge_summary, open_panel
from cai.judges.panel.panel import Panel
from cai.pipeline.export import write_export
from cai.pipeline.manifest import HARMLESS, length_change, provenance, reconciled, row_differences, timestamp
from cai.pipeline.pairs import Outcome, Sampler, open_samplers, pair_all, samples
from cai.pipeline.stages.revision import critique, draft, revise, worked
from cai.pipeline.stages.stage import Round, Stage
from cai.pipeline.stages.verdict_line import critique_body
from cai.runs.budget import Budget
from cai.runs.files import write_text
from cai.runs.findings import Audit, write_findings
from cai.runs.folder import Run, Spool
from cai.runs.journal import Journal
from cai.runs.journaled import Journaled
from cai.runs.manifest import Manifest, StageCount, Start, seconds_of, summed_calls
from cai.runs.models import Way, close_all, distinct_roles, open_all
from cai.runs.progress import Progress
from cai.runs.recipe import STAGES, Recipe, load_recipe
from cai.runs.secret import fence_secret
from cai.templates.template import Template, load_template


@dataclass(frozen=True, slots=True)
class Work:
    """What a run works with: the recipe, its constitution, and a stage for each kind of call."""

    recipe: Recipe
    constitution: Constitution
    gates: OpenGates
    draft: Stage
    critique: Stage
    revise: Stage
    models: dict[str, Journaled]
    samplers: tuple[Sampler, ...] = ()
    """Who answers, in a run that compares samples instead of revising."""
    panel: Panel | None = None
    """Judges the pairs; None: they are not judged."""

    @property
    def calls(self) -> int:
        """Calls that one trace takes, if no round ends early."""
        rounds = 0 if self.samplers else self.recipe.critique.rounds
        return 1 + rounds * (2 if self.recipe.critique.ask else 1)

    async def close(self) -> None:
        """Give the models back."""
        await close_all(self.models)


async def generate(
    recipe: Recipe, run: Run, progress: Progress | None = None, budget: Budget | None = None
) -> Manifest:
    """Make the rows, exports, audit and report of a recipe in the run folder. Raises Mistake, BudgetReached.

    What is done is kept. Where the folder holds a finished run, the new rows replace its rows when they are complete;
    rows of another recipe, constitution or prompts are kept in `previous/`.
    """
    progress, began = progress or Progress(), time.time()
    with run.locked(), Journal(run.path.parent / "journal.sqlite") as journal:
        run.recover()
        require_prompts(recipe)
        work = await prepare(recipe, journal, progress, budget)
        try:
            manifest, outcome, differs = await _rows(work, run, progress, began)
        finally:
            await work.close()
        if differs is not None:
            run.replace_rows(keep=bool(differs))
        return _after_rows(work, run, manifest, outcome, progress, began)


async def _rows(work: Work, run: Run, progress: Progress, began: float) -> tuple[Manifest, Outcome, list[str] | None]:
    """Traces, pairs, failures and the manifest; and what differs from the finished run there, None where there is none.

    Over a finished run they are written to `incomplete/`.
    """
    before, manifest = run.earlier, _provenance(work, run, began)
    differs, into = None, run
    if before and before.status == "finished":
        differs, into = row_differences(before, manifest, _recipe_of(run), work.recipe), run.incomplete
        if differs:
            progress.note(f"{run.path}: {', '.join(differs)} changed: the finished rows will be kept in previous/")
    if before and not differs:
        manifest = replace(
            manifest, train=before.train, policy=before.policy, exports=before.exports, lengths=before.lengths
        )
    starts = _earlier_starts(before, into, differs)
    write_recipe(work.recipe, into.path / "recipe.yaml")
    failures, outcome = Spool(into.path / "failures.jsonl", Failure), Outcome()
    try:
        manifest = replace(manifest, counts=await _trace_all(work, into, failures, outcome.kinds, progress))
        manifest = await _pair_all(work, into, failures, outcome, manifest, progress)
        if work.panel:
            progress.begin("judge card")
            manifest = replace(manifest, judge=await judge_summary(work.panel, into, manifest.models))
        manifest = replace(manifest, status="finished")
    finally:
        failures.finish()
        manifest = _with_start(
            replace(manifest, failures=dict(outcome.kinds), ties=outcome.ties), starts, progress, began
        )
        manifest.write(into.path)
    return manifest, outcome, differs


def _recipe_of(run: Run) -> Recipe | None:
    """The recipe of the finished run, None where this version cannot read it."""
    try:
        return load_recipe(run.path / "recipe.yaml")
    except Mistake:
        return None


def _earlier_starts(before: Manifest | None, into: Run, differs: list[str] | None) -> tuple[Start, ...]:
    """The starts that already worked on these rows, those that did not complete them included."""
    unfinished = into.earlier if differs is not None else None
    same = before.all_starts() if before and not differs else ()
    return same + (
        unfinished.starts[len(same) :] if unfinished and not differs else unfinished.starts if unfinished else ()
    )


def _with_start(manifest: Manifest, starts: tuple[Start, ...], progress: Progress, began: float) -> Manifest:
    """The manifest with this start added, and its calls and seconds summed over all."""
    calls = {role: replace(tally) for role, tally in progress.tallies.items()}
    every = (*starts, Start(timestamp(began), round(time.time() - began, 2), manifest.status, calls))
    return replace(manifest, starts=every, calls=summed_calls(every), seconds=seconds_of(every))


def _after_rows(
    work: Work, run: Run, manifest: Manifest, outcome: Outcome, progress: Progress, began: float
) -> Manifest:
    recipe = work.recipe
    progress.stage = "exports"
    exports = _export(recipe, run, recipe.export.formats)
    # last, because it takes numpy, which the rest of a run against an endpoint has no use for
    lengths = None if work.samplers else length_change(outcome.before, outcome.after)
    manifest = replace(manifest, exports=exports, lengths=lengths)
    manifest = _with_start(manifest, manifest.starts[:-1], progress, began)
    manifest.write(run.path)
    if recipe.audit:
        progress.stage = "audit"
        audit_finished_run(run, recipe.audit)
    if recipe.checks and manifest.total("pair").out:
        progress.stage = "checks"
        _check(run, recipe.checks)
    write_report(run, progress)
    return manifest


def _check(run: Run, names: tuple[str, ...]) -> None:
    """Check the pairs of the run; what is found joins its findings."""
    found = check_pairs([run.path / "pairs.jsonl"], checks=open_checks(only=names))
    write_findings(run.path, [Audit("checks", found.pairs, found.findings, sum(one.bad for one in found.files))])


async def prepare(
    recipe: Recipe, journal: Journal, progress: Progress, budget: Budget | None = None, *, by: Way = None
) -> Work:
    """Load and open everything before the first call, so that a mistake costs nothing. Raises Mistake."""
    constitution = load_constitution(recipe.constitution)
    loaded = {stage: load_template(stage, recipe.templates[stage]) for stage in STAGES}
    if recipe.critique.stop_when_clean and not loaded["critique"].header.verdict:
        fix = "set critique.stop_when_clean: false, or use a template that declares `verdict: true`"
        raise Mistake(loaded["critique"].name, "asks for no verdict, so no critique can be clean", fix)
    gates = open_gates(recipe.gates)
    _require_probes_and_checks(recipe)
    critic = {"critic": recipe.critic} if recipe.critic and not recipe.sample else {}
    models = await open_all({"writer": recipe.writer} | critic | extra_roles(recipe), journal, progress, budget, by=by)
    try:
        secret = fence_secret(journal.path, progress.note)
        stages = {name: _stage(name, recipe, template, models, secret) for name, template in loaded.items()}
        panel = open_panel(recipe, constitution, models, secret)
        samplers = open_samplers(recipe, gates, models, loaded["draft"], secret)
    except BaseException:
        await close_all(models)
        raise
    return Work(recipe, constitution, gates, **stages, models=models, samplers=samplers, panel=panel)


def _require_probes_and_checks(recipe: Recipe) -> None:
    """Raises Mistake for a probe or a check that there is not, or a wrong threshold, before anything is paid."""
    for name, settings in (recipe.audit or {}).items():
        with suppress(NotLoaded):
            probe_options(asked={name: settings})
    for name in recipe.checks or ():
        with suppress(NotLoaded):
            open_checks(only=[name])


def _stage(name: str, recipe: Recipe, template: Template, models: Mapping[str, Journaled], secret: bytes) -> Stage:
    settings = {"draft": recipe.draft, "critique": recipe.critique, "revise": recipe.revise}[name]
    model = models.get("critic", models["writer"]) if name == "critique" else models["writer"]
    return Stage(name, model, template, settings.sampling(template.header.stop), recipe.seed, secret)


def require_prompts(recipe: Recipe) -> None:
    """Raises Mistake where the prompts hold none that can be used."""
    first = None
    for prompt in read_prompts(recipe.prompts):
        if isinstance(prompt, Prompt):
            return
        first = first or prompt
    what = f"holds no usable prompt: {first.message}" if first else "holds no prompts"
    raise Mistake(f"prompts: {recipe.prompts.path}", what, "rows need `prompt` or `messages`")


async def _trace_all(
    work: Work, run: Run, failed: Spool[Failure], kinds: Counter[str], progress: Progress
) -> dict[str, StageCount]:
    """Take every prompt through its life; the counts of each stage, which must add up."""
    progress.begin("traces", count_prompts(work.recipe.prompts))
    traces = Spool(run.path / "traces.jsonl", Trace)
    stages: Counter[str] = Counter()
    prompts = enumerate(read_prompts(work.recipe.prompts))
    rows, stopped = 0, list[BudgetReached]()

    async def worker() -> None:
        nonlocal rows
        for position, prompt in prompts:
            turn.set(position)
            conversation.set(prompt.id)
            try:
                lives = [prompt] if isinstance(prompt, Failure) else await prompt_traces(work, prompt)
            except BudgetReached as error:  # the others finish the calls they have in flight: those are paid
                return stopped.append(error)
            rows += 1
            losses = [life for life in lives if isinstance(life, Failure)]
            traces.put(position, [life for life in lives if isinstance(life, Trace)])
            failed.put(position, losses)
            for loss in losses:
                stages[loss.stage] += 1
                kinds[loss.kind] += 1
                progress.failed += loss.kind not in HARMLESS
            progress.done += 1
            if stopped:
                return

    try:
        await crowd(worker, max(model.concurrency for model in work.models.values()))
    finally:
        traces.finish()
    if stopped:
        raise stopped[0]
    return reconciled(work.recipe, rows, stages, traces.rows)


async def prompt_traces(work: Work, prompt: Prompt) -> list[Trace | Failure]:
    if work.samplers:
        return await samples(work.recipe, work.samplers, prompt)
    lives = list[Trace | Failure]()
    for sample in range(work.recipe.draft.samples):
        lives.append(await prompt_trace(work, prompt, sample))  # a comprehension would be one coroutine more
    return lives


async def prompt_trace(work: Work, prompt: Prompt, sample: int) -> Trace | Failure:
    """One draft's life: drafted, then critiqued and revised round by round, each round on the current answer alone."""
    settings, stage = work.recipe, "draft"
    try:
        first, cut = await draft(work.draft, prompt, sample)
        answer, steps = first.text, list[Step]()
        for number in range(settings.critique.rounds):
            principle = draw_principle(work.constitution, prompt, round=number, seed=settings.seed, sample=sample)
            examples = worked(work.constitution, principle, settings.critique.examples)
            turn = Round(prompt, sample, number, answer, principle, examples)
            found, judged = None, None
            noticed: tuple[GateHit, ...] = ()
            if settings.critique.ask:
                stage = "critique"
                found, judged, noticed = await critique(work.critique, turn)
            if settings.critique.stop_when_clean and judged == "clean":
                steps.append(Step(number, principle.id, found, judged, gates=noticed))
                break
            stage = "revise"
            revision, taken = await revise(work.revise, turn, critique_body(found.text) if found else "")
            kept, hits = _passed(work.gates, revision, taken, turn)
            steps.append(Step(number, principle.id, found, judged, revision, kept, noticed + hits))
            answer = answer if kept is None else kept
    except CallFailed as error:
        return Failure(prompt.id, stage, error.kind, error.message, error.attempts, sample)
    except NoPrinciple as error:
        return Failure(
            prompt.id, "critique" if settings.critique.ask else "revise", "no_principle", str(error), 0, sample
        )
    seen = work.gates.draft(first.text, first.finish, prompt)
    return Trace(prompt, sample, first, tuple(steps), answer, cut + seen)


def _passed(
    gates: OpenGates, revision: Completion, taken: tuple[GateHit, ...], turn: Round
) -> tuple[str | None, tuple[GateHit, ...]]:
    """The revision as it may pass, None where it is dropped, and what was noticed, the cut of its fence first."""
    if any(hit.action == "drop" for hit in taken):
        return None, taken
    kept, hits = gates.revision(revision.text, turn.answer, revision.finish, turn.prompt)
    return kept, taken + hits


async def _pair_all(
    work: Work, run: Run, failed: Spool[Failure], outcome: Outcome, manifest: Manifest, progress: Progress
) -> Manifest:
    """Second pass, over the rows on disk: pairs, their labels, and what the gates did."""
    if work.panel:
        progress.begin("labels", manifest.total("read" if work.samplers else "revise").out)
    start = manifest.total("read").entered
    await pair_all(work.recipe, run, work.gates, work.panel, outcome, failed=failed, start=start, tick=progress.tick)
    counts = {**manifest.counts, **outcome.stages(judged=work.panel is not None)}
    return replace(manifest, counts=counts, gates={name: dict(actions) for name, actions in outcome.gates.items()})


def export_run(recipe: Recipe, run: Run, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Write a finished run's rows again in these formats; rows by split. Raises Mistake."""
    with run.locked():
        return _export(recipe, run, names)


def _export(recipe: Recipe, run: Run, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    split = make_split(recipe.export.test_share, recipe.seed)
    return {name: write_export(run, name, split=split) for name in names}


def write_report(run: Run, progress: Progress) -> None:
    """Build the page of a run anew."""
    from cai.report.run_page import run_page

    progress.stage = "report"
    write_text(run.path / "report.html", run_page(run))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """The recipe with every default written out; it runs as it stands."""
    from io import BytesIO

    from ruamel.yaml import YAML

    text = BytesIO()
    YAML(typ="safe", pure=True).dump(recipe.model_dump(mode="json", by_alias=True), text)
    write_text(path, text.getvalue().decode())


def _provenance(work: Work, run: Run, started: float) -> Manifest:
    stages = (work.draft,) if work.samplers else (work.draft, work.critique, work.revise)
    asked = {stage.name: stage.template for stage in stages}
    identities = {role: dict(model.identity) for role, model in distinct_roles(work.models).items()}
    return replace(provenance(work.recipe, work.constitution, asked, run.path, started), models=identities)


def tokenizer_folder(run: Run, name: str) -> str:
    """The folder of the tokenizer to check exports with: the one named, else the run's own writer's. Raises Mistake."""
    from cai.backends.local.weights import find_weights

    writer = run.manifest.models["writer"]
    if not name and writer.get("engine") != "transformers":
        fix = "add --tokenizer: a known model, a Hugging Face id or a folder"
        raise Mistake("--check", f"the writer is asked by {writer.get('engine')} and has no tokenizer here", fix)
    return str(find_weights(name or writer["model"]).folder)
