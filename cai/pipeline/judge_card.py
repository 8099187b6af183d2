"""Measure a recipe's judge on labelled pairs: open its models, ask it through the journal, leave its card in a folder.

Left out on purpose: what a card holds (`judge_card`), and writers: only judges are opened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cai.constitution.principles import load_constitution
from cai.core.errors import Mistake
from cai.core.types import Constitution
from cai.data.pairs import data_files
from cai.data.prompts import prompts_digest
from cai.judges.panel.gold import measure_judge
from cai.judges.panel.open import describe_judges, extra_roles, open_panel
from cai.judges.panel.panel import Panel
from cai.runs.budget import Budget, CallTally
from cai.runs.folder import Run
from cai.runs.journal import Journal
from cai.runs.journaled import Journaled
from cai.runs.judge_card import JudgeCard, JudgeFigures, JudgeSummary, LabelCost
from cai.runs.models import close_all, open_all
from cai.runs.progress import Progress
from cai.runs.recipe import PromptSource, Recipe
from cai.runs.secret import fence_secret


async def measure_judges(
    recipe: Recipe,
    files: list[Path],
    folder: Run,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    budget: Budget | None = None,
) -> JudgeCard:
    """Figures on each gold file, on all its pairs or on `limit` drawn by digest, and what a label costs.

    The same again asks nothing. Raises Mistake, BudgetReached.
    """
    progress, began = progress or Progress(), time.time()
    constitution = load_constitution(recipe.constitution)
    named = _named(files)
    with folder.locked(), Journal(folder.path.parent / "journal.sqlite") as journal:
        judges = {role: choice for role, choice in extra_roles(recipe).items() if role.startswith("judge")}
        models = await open_all(judges, journal, progress, budget)
        try:
            secret = fence_secret(journal.path, progress.note)
            panel = open_panel(recipe, constitution, models, secret)
            if panel is None:
                raise Mistake("recipe", "has no judge to measure", "add one, for example judge: logprob")
            progress.begin("labels")
            measured = {name: await measure_judge(panel, path, limit, progress.tick) for name, path in named.items()}
        finally:
            await close_all(models)
        gold = {name: _of_file(figures, named[name]) for name, figures in measured.items()}
        labels = sum(figures.pairs or 0 for figures in gold.values())
        cost = label_cost(list(progress.tallies.values()), labels, time.time() - began)
        card = JudgeCard(_described(panel, models, constitution, recipe), gold, cost)
        card.write(folder.path)
    return card


def _of_file(figures: JudgeFigures, path: Path) -> JudgeFigures:
    return replace(figures, file=str(path), digest=prompts_digest(PromptSource(path=str(path))))


def _described(
    panel: Panel, models: Mapping[str, Journaled], constitution: Constitution, recipe: Recipe
) -> JudgeSummary:
    return replace(
        describe_judges(panel),
        models={role: dict(model.identity) for role, model in models.items()},
        constitution={"name": constitution.name, "version": constitution.version, "digest": constitution.digest},
        seed=recipe.seed,
    )


def _named(files: list[Path]) -> dict[str, Path]:
    """Each data file by a short name: a folder stands for the files in it. Raises Mistake."""
    inside = [file for path in files for file in data_files(path)]
    several = len({file.stem for file in inside}) < len(inside)
    return {str(file) if several else file.stem: file for file in inside}


def label_cost(tallies: list[CallTally], labels: int, seconds: float) -> LabelCost:
    """What the labels took: calls and tokens in all, found ones too; seconds and money of this start."""
    spent = [tally.new_cost for tally in tallies]
    tokens = sum(tally.usage.prompt_tokens + tally.usage.completion_tokens for tally in tallies)
    asked, found = sum(tally.asked for tally in tallies), sum(tally.found for tally in tallies)
    return LabelCost(
        labels=labels,
        calls_per_label=(asked + found) / labels if labels else None,
        tokens_per_label=tokens / labels if labels else None,
        new_calls=asked,
        new_cost=None if None in spent else sum(one or 0.0 for one in spent),
        seconds=round(seconds, 1),
        models=tuple(tallies),
    )
