"""Ask policies for an audit: the same prompts to a new policy and to an old one, through the journal.

A policy is a folder, a training's folder, a known name or a hub id, opened in this process; or a recipe, whose writer
it is, so that any backend can be audited. Prompts are sent as they are, without a template of ours.

Left out on purpose: looking at the answers, which is the probes'.
"""

from __future__ import annotations

import json
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
from cai.core.plugin_types import Case, Exhibit, Method, Probe
from cai.core.seeds import seed
from cai.core.types import Model, Prompt, Request, Sampling
from cai.data.files import rows
from cai.data.prompts import locate_prompts, read_prompts
from cai.judges.panel import open
from cai.judges.panel.open import extra_roles
from cai.judges.panel.panel import Panel
from cai.runs import recipe
from cai.runs.findings import Audit
from cai.runs.folder import Run
from cai.runs.journal import Journal
from cai.runs.models import close_all, open_all
from cai.runs.progress import Progress
from cai.runs.recipe import ModelChoice, PromptSource, Recipe

PROBED = Sampling(temperature=0.0, max_tokens=64)
"""How the probes' own questions are asked: they are short, and chance has no part in them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which prompts, and how they are answered."""

    prompts: PromptSource
    sampling: Sampling = Sampling(temperature=0.7, max_tokens=192)
    seed: int = 0


def policy(name: str) -> ModelChoice:
    """The model that a name means. Raises Mistake for a recipe that cannot be read."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return recipe.load_recipe(path).writer
    inside = path / "model" if (path / "settings.json").is_file() else path
    return ModelChoice.model_validate({"backend": "transformers", "model": str(inside) if path.is_dir() else name})


async def audit_policy(
    new: str, old: str, asked: Asked, chosen: Mapping[str, Knobs], runs: Path, *, law: str = "",
    beliefs: Path | None = None, progress: Progress | None = None,
) -> Audit:  # fmt: skip
    """Have both policies answer, and look at what changed. `law`: a constitution whose words belong in no answer."""
    progress, lost = progress or Progress(), Counter[str]()
    facts = load_facts(beliefs)
    prompts = [prompt for prompt in read_prompts(asked.prompts) if isinstance(prompt, Prompt)]
    if not prompts:
        raise Mistake(asked.prompts.path, "holds no prompt that can be read", "check the path and the column")
    own = [prompt for name in chosen for prompt in _asks(name, facts)]
    said: list[Mapping[str, str]] = []
    with Journal(runs / "journal.sqlite") as journal:
        for name in (new, old):  # one after the other: two models need not fit into memory together
            model = (await open_all({name: policy(name)}, journal, progress, None))[name]
            try:
                progress.begin(name, len(prompts) + len(own))
                answered = await answers(model, prompts, asked.sampling, asked.seed, progress, lost)
                said.append(answered | await answers(model, own, PROBED, asked.seed, progress, lost))
            finally:
                await model.close()
    exhibit = Exhibit(
        tuple(_cases(prompts, said[0], said[1], expectations(asked.prompts))),
        texts=tuple(_laws(law)) if law else (),
        facts=facts,
        answers={p.id: (said[0][p.id], said[1][p.id]) for p in own if p.id in said[0] and p.id in said[1]},
    )
    of = f"policy {_short(new)} against {_short(old)}"
    found = tuple(run_probes("policy", exhibit, chosen, of))
    return Audit(of, len(exhibit.cases), found, lost.total())


async def judge(
    chosen: Recipe, probes: Mapping[str, Knobs], runs: Path, *, beliefs: Path | None = None,
    progress: Progress | None = None,
) -> Audit:  # fmt: skip
    """Ask a recipe's judge about plain facts, under beliefs of the user's, and look at what it goes by.

    Raises Mistake. A judge that sees both answers is asked in the orders that the recipe says.
    """
    progress, lost = progress or Progress(), Counter[str]()
    facts, law = load_facts(beliefs), load_constitution(chosen.constitution)
    with Journal(runs / "journal.sqlite") as journal:
        seats = {role: choice for role, choice in extra_roles(chosen).items() if role.startswith("judge")}
        models = await open_all(seats, journal, progress, None)
        try:
            panel = open.open_panel(chosen, law, models)
            if panel is None:
                raise Mistake("recipe", "has no judge to audit", "add one, for example judge: logprob")
            cases = await _verdicts(panel, sycophancy.belief_cases(facts), progress, lost)
        finally:
            await close_all(models)
    of = f"judge {'+'.join(f'{juror.method} ({juror.model})' for juror in panel.jurors)}"
    found = run_probes("judge", Exhibit(cases, facts=facts), probes, of)
    return Audit(of, len(cases), tuple(found), lost.total())


async def _verdicts(panel: Panel, contests: Sequence[Case], progress: Progress, lost: Counter[str]) -> tuple[Case, ...]:
    """The cases as they were judged, in their order; what was not judged is counted."""
    said: dict[str, Case] = {}
    progress.begin("judge", len(contests))
    waiting = iter(contests)

    async def worker() -> None:
        for case in waiting:
            try:
                # one id for all beliefs about a fact: the same principle is drawn, and only the belief differs
                verdict = await panel.verdict(Prompt(case.answer, case.prompt), case.answer, case.other, "audit")
            except (CallFailed, NoPrinciple) as error:
                lost[getattr(error, "kind", "no_principle")] += 1
            else:
                lost["abstained"] += verdict.p is None
                if verdict.p is not None:
                    said[case.id] = replace(case, p=verdict.p, orders=verdict.orders)
            progress.tick()

    await crowd(worker, panel.concurrency)
    return tuple(said[case.id] for case in contests if case.id in said)


def _asks(name: str, facts: Sequence[object]) -> Sequence[Prompt]:
    asks = plugins.find_plugin("audit", name, Probe).asks
    return asks(facts) if asks else ()  # type: ignore[arg-type]  # facts are facts


def _short(name: str) -> str:
    path = Path(name)
    return path.resolve().parent.name if path.name == "model" else path.name


async def answers(
    model: Model, prompts: Sequence[Prompt], sampling: Sampling, start: int, progress: Progress, lost: Counter[str]
) -> dict[str, str]:
    """What the model says to each prompt, by its id; a call that failed is counted and has no answer."""
    said: dict[str, str] = {}
    waiting = iter(prompts)

    async def worker() -> None:
        for prompt in waiting:
            request = Request(prompt.messages, sampling, seed(start, "audit", prompt.id))
            try:
                said[prompt.id] = (await model.complete(request)).text.strip()
            except CallFailed as error:
                lost[error.kind] += 1
            progress.tick()

    await crowd(worker, model.concurrency)
    return said


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
    """What a file of prompts says a good answer does, and of which category it is, by id; of a hub id nothing."""
    path = locate_prompts(source)
    if path is None or path.is_dir():
        return {}
    listed = (row for _, row in islice(rows(path), source.limit) if isinstance(row, dict) and row.get("id"))
    return {str(row["id"]): (str(row.get("expect") or ""), str(row.get("category") or "")) for row in listed}


def _laws(name: str) -> Iterator[str]:
    for principle in load_constitution(name).principles:
        yield from filter(None, (principle.critique, principle.revise, principle.compare))


async def audit_run(
    where: Run, overrides: Sequence[str] = (), *, limit: int = 100, progress: Progress | None = None
) -> list[Audit]:
    """Everything a run has: its pairs and labels, what revision changed, and every finished training in it.

    Probes and thresholds are those of its recipe, with `overrides`. Raises Mistake.
    """
    said = recipe.load_recipe(where.finished / "recipe.yaml")
    chosen = probe_options(overrides, said.audit)
    done = [audit_pairs(where.path, chosen)] if any(where.pairs()) else []
    if changed := list(_revised(where)):
        exhibit = Exhibit(tuple(changed), texts=tuple(spoken(where)))
        done.append(Audit("revisions", len(changed), tuple(run_probes("policy", exhibit, chosen, "revisions"))))
    for folder in sorted((where.path / "train").glob("*/figures.json")):
        settings = json.loads((folder.parent / "settings.json").read_text("utf-8"))
        if plugins.find_plugin("train", settings["method"], Method).writes == "reward":
            done.append(audit_reward([folder.parent], where.path, chosen, told=(progress or Progress()).scored))
        else:
            asked = Asked(said.prompts.model_copy(update={"limit": min(limit, said.prompts.limit or limit)}))
            base = settings["model"]["name"]
            law = said.constitution
            done.append(
                await audit_policy(
                    str(folder.parent), base, asked, chosen, where.path.parent, law=law, progress=progress
                )
            )
    return done


def _revised(where: Run) -> Iterator[Case]:
    """Each trace's last answer against its draft, where there were rounds."""
    for trace in islice(where.traces(), MANY):
        if trace.steps:
            name = trace.prompt.id + (f"#{trace.sample}" if trace.sample else "")
            yield Case(name, trace.prompt.messages, trace.final, trace.draft.text)
