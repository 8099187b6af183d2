"""Measure a recipe's judge on labelled pairs: open its models, ask it through the journal, leave its card in a folder.

Left out on purpose: what a card holds (`judge_card`), and writers: only judges are opened.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from cai.constitution import principles as constitution
from cai.core.errors import Mistake
from cai.data import pairs as preferences
from cai.data import prompts as sources
from cai.judges.panel import gold, open
from cai.judges.panel.card import Card
from cai.judges.panel.open import described, roles
from cai.runs.budget import Budget
from cai.runs.files import write_json
from cai.runs.folder import Run
from cai.runs.journal import Journal, Tally
from cai.runs.models import open_all
from cai.runs.progress import Progress
from cai.runs.recipe import Recipe, Source


async def judge_card(
    chosen: Recipe,
    files: list[Path],
    where: Run,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    budget: Budget | None = None,
) -> Card:
    """A card for each gold file, on all its pairs or on `limit` drawn by digest, and what a label costs.

    The same again asks nothing. Raises Mistake, BudgetReached.
    """
    progress, started = progress or Progress(), time.time()
    laws = constitution.load(chosen.constitution)
    named = _named(files)
    with where.locked(), Journal(where.path.parent / "journal.sqlite") as journal:
        seats = {role: choice for role, choice in roles(chosen).items() if role.startswith("judge")}
        models = open_all(seats, journal, progress, budget)
        try:
            panel = open.panel(chosen, laws, models)
            if panel is None:
                raise Mistake("recipe", "has no judge to measure", "add one, for example judge: logprob")
            progress.begin("labels")
            cards = {name: await gold.measured(panel, path, limit, progress.tick) for name, path in named.items()}
        finally:
            for model in set(models.values()):
                await model.close()
        judge = described(panel) | {
            "models": {role: dict(model.identity) for role, model in models.items()},
            "constitution": {"name": laws.name, "version": laws.version, "digest": laws.digest},
            "seed": chosen.seed,
        }
        digests = {name: sources.fingerprint(Source(path=str(path))) for name, path in named.items()}
        labels = sum(card["pairs"] for card in cards.values())
        said: Card = {
            "judge": judge,
            "gold": {name: {"file": str(named[name]), "digest": digests[name]} | card for name, card in cards.items()},
            "cost": cost(list(progress.tallies.values()), labels, time.time() - started),
        }
        write_json(where.path / "judge_card.json", said)
    return said


def _named(files: list[Path]) -> dict[str, Path]:
    """Each data file by a short name: a folder stands for the files in it. Raises Mistake."""
    inside = [file for path in files for file in preferences.files(path)]
    several = len({file.stem for file in inside}) < len(inside)
    return {str(file) if several else file.stem: file for file in inside}


def cost(tallies: list[Tally], labels: int, seconds: float) -> Card:
    """What the labels took: calls and tokens in all, found ones too; seconds and money of this sitting."""
    spent = [tally.new_cost for tally in tallies]
    tokens = sum(tally.prompt_tokens + tally.completion_tokens for tally in tallies)
    asked, found = sum(tally.asked for tally in tallies), sum(tally.found for tally in tallies)
    return {
        "labels": labels,
        "calls_per_label": (asked + found) / labels if labels else None,
        "tokens_per_label": tokens / labels if labels else None,
        "new_calls": asked,
        "new_cost": None if None in spent else sum(one or 0.0 for one in spent),
        "seconds": round(seconds, 1),
        "models": [asdict(tally) for tally in tallies],
    }
