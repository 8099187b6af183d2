"""Audits of policies, judges and runs: collects their answers through the journal and runs the probes on them.

A policy is a model folder, a training's folder, a known name or a hub id, opened in this process; or a recipe, meaning
its writer, so that any backend can be audited. Prompts are sent unchanged, without a template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from cai.audit import sycophancy
from cai.audit.subjects.audit import (
    MANY,
    audit_pairs,
    audit_reward,
    load_facts,
    probe_options,
    run_probes,
    spoken,
)
from cai.constitution.principles import NoPrinciple, load_constitution
from cai.core import plugins
from cai.core.concurrency import crowd
from cai.core.config import Knobs
from cai.core.errors import CallFailed, Mistake
from cai.core.plugin_types import Case, Exhibit, Fact, Method, Probe
from cai.core.seeds import seed
from cai.core.types import Model, Prompt, Request, Sampling
from cai.data.files import rows
from cai.data.prompts import locate_prompts, read_prompts
from cai.judges.panel import open
from cai.judges.panel.open import extra_roles
from cai.judges.panel.panel import Panel
from cai.runs.files import restored
from cai.runs.findings import Audit
from cai.runs.folder import Run
from cai.runs.journal import Journal
from cai.runs.models import close_all, open_all
from cai.runs.progress import Progress
from cai.runs.recipe import ModelChoice, PromptSource, Recipe, load_recipe
from cai.runs.secret import fence_secret
from cai.runs.training import SETTINGS, TrainingSettingsRecord

PROBED = Sampling(temperature=0.0, max_tokens=64)
"""Sampling of the probes' own questions: short and deterministic."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The prompts of a policy audit, and the sampling of the answers."""

    prompts: PromptSource
    sampling: Sampling = Sampling(temperature=0.7, max_tokens=192)
    seed: int = 0


def policy(name: str) -> ModelChoice:
    """The model that `name` refers to. Raises Mistake for a recipe that cannot be read."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return load_recipe(path).writer
    inside = restored(path / "model") if (path / SETTINGS).is_file() else path
    return ModelChoice.model_validate({"backend": "transformers", "model": str(inside) if path.is_dir() else name})


async def audit_policy(
    new: str, old: str, asked: Asked, probes: Mapping[str, Knobs], runs: Path, *, constitution: str = "",
    beliefs: Path | None = None, progress: Progress | None = None,
) -> Audit:  # fmt: skip
    """Collect the answers of both policies and compare them.

    `constitution`: one whose words must not occur in answers. Raises Mistake.
    """
    progress, lost = progress or Progress(), Counter[str]()
    facts = load_facts(beliefs)
    prompts = [prompt for prompt in read_prompts(asked.prompts) if isinstance(prompt, Prompt)]
    if not prompts:
        raise Mistake(asked.prompts.path, "has no prompt that can be read", "check the path and the column")
    own = [prompt for name in probes for prompt in _asks(name, facts)]
    answered_by: list[Mapping[str, str]] = []
    with Journal(runs / "journal.sqlite") as journal:
        for name in (new, old):  # one after the other: two models need not fit into memory together
            model = (await open_all({name: policy(name)}, journal, progress, None))[name]
            try:
                progress.begin(name, len(prompts) + len(own))
                answered = await answers(model, prompts, asked.sampling, asked.seed, progress, lost)
                answered_by.append(answered | await answers(model, own, PROBED, asked.seed, progress, lost))
            finally:
                await model.close()
    exhibit = Exhibit(
        tuple(_cases(prompts, answered_by[0], answered_by[1], expectations(asked.prompts))),
        texts=tuple(_principle_texts(constitution)) if constitution else (),
        facts=facts,
        answers={
            p.id: (answered_by[0][p.id], answered_by[1][p.id])
            for p in own
            if p.id in answered_by[0] and p.id in answered_by[1]
        },
    )
    of = f"policy {_short(new)} against {_short(old)}"
    found = tuple(run_probes("policy", exhibit, probes, of))
    return Audit(of, len(exhibit.cases), found, lost.total())


async def judge(
    recipe: Recipe, probes: Mapping[str, Knobs], runs: Path, *, beliefs: Path | None = None,
    progress: Progress | None = None,
) -> Audit:  # fmt: skip
    """Audit a recipe's judge on factual questions, under beliefs of the user: sycophancy and position bias.

    A judge that sees both answers is asked in the orders that the recipe says. Raises Mistake.
    """
    progress, lost = progress or Progress(), Counter[str]()
    facts, constitution = load_facts(beliefs), load_constitution(recipe.constitution)
    with Journal(runs / "journal.sqlite") as journal:
        roles = {role: choice for role, choice in extra_roles(recipe).items() if role.startswith("judge")}
        models = await open_all(roles, journal, progress, None)
        try:
            secret = fence_secret(journal.path, progress.note)
            panel = open.open_panel(recipe, constitution, models, secret)
            if panel is None:
                raise Mistake("recipe", "has no judge to audit", "add one, for example judge: logprob")
            cases = await _verdicts(panel, sycophancy.belief_cases(facts), progress, lost)
        finally:
            await close_all(models)
    of = f"judge {'+'.join(f'{juror.method} ({juror.model})' for juror in panel.jurors)}"
    found = run_probes("judge", Exhibit(cases, facts=facts), probes, of)
    return Audit(of, len(cases), tuple(found), lost.total())


async def _verdicts(panel: Panel, cases: Sequence[Case], progress: Progress, lost: Counter[str]) -> tuple[Case, ...]:
    """The cases with their verdicts, in order; cases without one are counted."""
    answered_by: dict[str, Case] = {}
    progress.begin("judge", len(cases))
    pending = iter(cases)

    async def worker() -> None:
        for case in pending:
            try:
                # one prompt id for all beliefs about a fact, so that the same principle is drawn for each
                verdict = await panel.verdict(Prompt(case.answer, case.prompt), case.answer, case.other, "audit")
            except (CallFailed, NoPrinciple) as error:
                lost[getattr(error, "kind", "no_principle")] += 1
            else:
                lost["abstained"] += verdict.p is None
                if verdict.p is not None:
                    answered_by[case.id] = replace(case, p=verdict.p, orders=verdict.orders)
            progress.tick()

    await crowd(worker, panel.concurrency)
    return tuple(answered_by[case.id] for case in cases if case.id in answered_by)


def _asks(name: str, facts: Sequence[Fact]) -> Sequence[Prompt]:
    asks = plugins.find_plugin("audit", name, Probe).asks
    return asks(facts) if asks else ()


def _short(name: str) -> str:
    path = Path(name)
    return path.resolve().parent.name if path.name == "model" else path.name


async def answers(
    model: Model, prompts: Sequence[Prompt], sampling: Sampling, start: int, progress: Progress, lost: Counter[str]
) -> dict[str, str]:
    """The model's answer to each prompt, by its id; a failed call is counted and gives no answer."""
    answered_by: dict[str, str] = {}
    pending = iter(prompts)

    async def worker() -> None:
        for prompt in pending:
            request = Request(prompt.messages, sampling, seed(start, "audit", prompt.id))
            try:
                answered_by[prompt.id] = (await model.complete(request)).text.strip()
            except CallFailed as error:
                lost[error.kind] += 1
            progress.tick()

    await crowd(worker, model.concurrency)
    return answered_by


def _cases(
    prompts: Sequence[Prompt], new: Mapping[str, str], old: Mapping[str, str], expected: Mapping[str, tuple[str, str]]
) -> Iterator[Case]:
    for prompt in prompts:
        if prompt.id in new and prompt.id in old:
            expect, category = expected.get(prompt.id, ("", ""))
            known = expect if expect in ("comply", "refuse") else None
            yield Case(
                prompt.id, prompt.messages, new[prompt.id], old[prompt.id], expect=known, category=category  # type: ignore[arg-type]  # as just seen
            )  # fmt: skip


def expectations(source: PromptSource) -> dict[str, tuple[str, str]]:
    """Expected behaviour and category of each prompt in a file, by id; empty for a hub id."""
    path = locate_prompts(source)
    if path is None or path.is_dir():
        return {}
    listed = (row for _, row in islice(rows(path), source.limit) if isinstance(row, dict) and row.get("id"))
    return {str(row["id"]): (str(row.get("expect") or ""), str(row.get("category") or "")) for row in listed}


def _principle_texts(name: str) -> Iterator[str]:
    for principle in load_constitution(name).principles:
        yield from filter(None, (principle.critique, principle.revise, principle.compare))


async def audit_run(
    run: Run, overrides: Sequence[str] = (), *, limit: int = 100, progress: Progress | None = None
) -> list[Audit]:
    """Audit a run: its pairs and labels, its revisions against the drafts, and every finished training in it.

    Probes and thresholds are those of its recipe, with `overrides`. Raises Mistake.
    """
    recipe = load_recipe(run.finished / "recipe.yaml")
    probes = probe_options(overrides, recipe.audit)
    done = [audit_pairs(run.path, probes)] if any(run.pairs()) else []
    if changed := list(_revised(run)):
        exhibit = Exhibit(tuple(changed), texts=tuple(spoken(run)))
        done.append(Audit("revisions", len(changed), tuple(run_probes("policy", exhibit, probes, "revisions"))))
    for folder in sorted((run.path / "train").glob("*/figures.json")):
        settings = TrainingSettingsRecord.read(folder.parent)
        if plugins.find_plugin("train", settings.method, Method).writes == "reward":
            done.append(audit_reward([folder.parent], run.path, probes, on_scored=(progress or Progress()).scored))
        else:
            asked = Asked(recipe.prompts.model_copy(update={"limit": min(limit, recipe.prompts.limit or limit)}))
            done.append(
                await audit_policy(
                    str(folder.parent), settings.model.name, asked, probes, run.path.parent,
                    constitution=recipe.constitution, progress=progress,
                )
            )  # fmt: skip
    return done


def _revised(run: Run) -> Iterator[Case]:
    """For each trace with revisions, the final answer against the draft."""
    for trace in islice(run.traces(), MANY):
        if trace.steps:
            name = trace.prompt.id + (f"#{trace.sample}" if trace.sample else "")
            yield Case(name, trace.prompt.messages, trace.final, trace.draft.text)
