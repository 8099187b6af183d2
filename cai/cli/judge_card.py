"""The command line's `judge-card`: how good a judge is, by pairs that people have labelled.

Left out on purpose: measuring, which is `measure`'s. This prints, and `cli` mounts it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.core.safe_text import safe_text as _safe

if TYPE_CHECKING:
    from cai.runs.judge_card import JudgeCard
    from cai.runs.recipe import Recipe


def judge_card_command(
    judge: Annotated[str, typer.Argument(metavar="JUDGE", help="logprob, likelihood ..., or a recipe with a judge.")],
    gold: Annotated[list[Path], typer.Option("--gold", metavar="FILE", help="Labelled pairs; repeat for more files.")],
    limit: Annotated[int | None, typer.Option(min=2, help="Only so many pairs of each file, drawn by digest.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the folder under runs/.")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="The folder that holds runs and their journal.")] = Path("runs"),
    override: Annotated[list[str], typer.Option("-o", help="Set a key: -o judge.orders=one.")] = [],
    max_calls: Annotated[int | None, typer.Option(min=0, help="Stop before more new calls than this.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Stop before new calls can cost more.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """Measure a judge: accuracy beside what costs nothing, calibration, position, length, all with intervals."""
    import asyncio

    from cai.cli.progress import watched
    from cai.pipeline.judge_card import measure_judges
    from cai.report.judge_page import judge_page
    from cai.runs.budget import Budget
    from cai.runs.files import write_text
    from cai.runs.folder import Run, run_folder

    chosen = _recipe(judge, tuple(override))
    where = Run(run_folder(runs, name or f"card-{Path(judge).stem}"))
    budget = Budget(max_calls=max_calls, max_cost=max_cost)
    with watched(quiet or as_json) as progress:
        card = asyncio.run(measure_judges(chosen, gold, where, limit=limit, progress=progress, budget=budget))
    write_text(where.path / "judge_card.html", judge_page(card))
    if as_json:
        print(json.dumps(card.as_json(), indent=2))
    else:
        _tell(card, where.path)


def _recipe(judge: str, overrides: tuple[str, ...]) -> Recipe:
    from cai.core import plugins
    from cai.runs import recipe

    if judge in plugins.plugin_names("judges"):
        return recipe.judge_recipe(judge, overrides)
    return recipe.load_recipe(judge, overrides)


def _tell(card: JudgeCard, folder: Path) -> None:
    from cai.report.cards.judge import judge_card_lines

    for name, figures in card.gold.items():
        print(f"\n{_safe(name)}")
        for what, value in judge_card_lines(figures):
            print(_safe(f"  {what:38} {value}"))
    cost = card.cost
    each = "no" if cost.calls_per_label is None else f"{cost.calls_per_label:.1f}"
    print(f"\n{cost.labels} labels, {each} calls each; {cost.new_calls} new calls", end="")
    print(f" in {cost.seconds} s; see {folder / 'judge_card.html'}")
