"""The commands `run`, `retry` and `try`: ask models by a recipe."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.arguments import (
    Json,
    MaxCalls,
    MaxCost,
    MaxTokens,
    Overrides,
    Quiet,
    RecipeName,
    RunName,
    Runs,
    open_run,
)  # fmt: skip
from cai.core.errors import CaiError, Mistake

if TYPE_CHECKING:
    from cai.pipeline.estimate import Estimate
    from cai.runs.budget import Budget
    from cai.runs.folder import Run
    from cai.runs.recipe import Recipe


def run_command(
    recipe: RecipeName,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; the recipe's, if not given.")] = None,
    runs: Runs = Path("runs"),
    override: Overrides = [],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls, tokens and cost; ask nothing.")] = False,
    sample: Annotated[int, typer.Option(min=0, help="With --dry-run: ask this many prompts to measure by.")] = 0,
    batch: Annotated[
        bool, typer.Option("--batch", help="Use the vendor's batch API: half the price, answers hours later.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for an endpoint's limit of a day to end instead of stopping at it.")
    ] = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Do what a recipe says. The same command again resumes: what was answered is not asked again.

    Where the run is finished and the recipe, the constitution or the prompts have changed, the new rows replace the old
    ones when they are complete, and the old ones are kept in the run's folder under previous/.
    """
    from cai.core.plugins import without_code
    from cai.pipeline.estimate import estimate
    from cai.pipeline.run import check_trainings
    from cai.runs.budget import Budget

    loaded, run = _opened(recipe, name, runs, override)
    loaded = _as_asked(loaded, runs, batch=batch, wait=wait)
    if dry_run:
        with nullcontext() if sample else without_code():  # a sample is run, and everything it needs with it
            check_trainings(loaded)
            found = asyncio.run(estimate(loaded, run, sample))
        return _print_estimate(found, as_json)
    _run_to_the_end(loaded, run, Budget(max_calls, max_tokens, max_cost), quiet, as_json)


def retry_command(
    run: RunName,
    runs: Runs = Path("runs"),
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Ask again what failed in a run, and nothing else."""
    from cai.constitution.principles import load_constitution
    from cai.runs.budget import Budget
    from cai.runs.recipe import load_recipe

    found = open_run(run, runs)
    recipe = load_recipe(found.path / "recipe.yaml")
    if load_constitution(recipe.constitution).digest != found.manifest.constitution.digest:
        what = f"has changed since {found.path} was made, so more than failures is new"
        raise Mistake(recipe.constitution, what, "run the recipe to see what the change makes of it")
    _run_to_the_end(recipe, found, Budget(max_calls, max_tokens, max_cost), quiet, as_json)


def try_command(
    prompt: Annotated[str, typer.Argument(help="A prompt to try the recipe on.")],
    recipe: Annotated[str, typer.Option("--recipe", help="A YAML file, or a shipped recipe.")] = "demo",
    runs: Runs = Path("runs"),
    override: Overrides = [],
) -> None:
    """Show what a recipe makes of one prompt: draft, critiques, revisions with what changed."""
    from cai.cli.text import print_trace
    from cai.core.types import Failure
    from cai.pipeline.estimate import try_prompt

    trace = asyncio.run(try_prompt(*_opened(recipe, "try", runs, override), prompt))
    if isinstance(trace, Failure):
        raise CaiError(f"{trace.stage} failed: {trace.kind}: {trace.message}")
    print_trace(trace)


def _opened(recipe: str, name: str | None, runs: Path, override: list[str]) -> tuple[Recipe, Run]:
    from cai.runs.folder import Run, run_folder
    from cai.runs.recipe import load_recipe, locate_recipe

    path = locate_recipe(recipe)
    return load_recipe(path, tuple(override)), Run(run_folder(runs, name or path.stem))


def _as_asked(recipe: Recipe, runs: Path, *, batch: bool, wait: bool) -> Recipe:
    """The recipe with what options say about how its endpoints are asked. Raises Mistake."""
    from cai.runs.endpoint_settings import by_batch, waiting

    recipe = by_batch(recipe, runs / "batches") if batch else recipe
    return waiting(recipe) if wait else recipe


def _run_to_the_end(recipe: Recipe, run: Run, budget: Budget, quiet: bool, as_json: bool) -> None:
    from cai.cli.progress import watched
    from cai.cli.text import print_manifest
    from cai.pipeline.manifest import too_many_failures
    from cai.pipeline.run import run as run_recipe

    try:
        with watched(quiet or as_json) as progress:
            manifest = asyncio.run(run_recipe(recipe, run, progress, budget))
    except KeyboardInterrupt:
        what = f"interrupted: what is done is in {run.path}; the same command goes on from there"
        print(f"cai: {what}", file=sys.stderr)
        raise typer.Exit(130) from None
    print_manifest(manifest, run, as_json)
    if error := too_many_failures(recipe, manifest):
        raise error


def _print_estimate(found: Estimate, as_json: bool) -> None:
    from dataclasses import asdict

    from cai.cli.text import counted

    if as_json:
        print(json.dumps(asdict(found)))
        return
    print(
        f"{counted(found.prompts, 'prompt')}: {found.answered} calls are answered already, at most {found.new} are new"
    )
    for name in found.not_loaded:
        print(f"not loaded: {name}; it is loaded when the recipe is run, and what it would be asked counts as new")
    if found.new and found.new_tokens is None:
        print("tokens and cost are not known before something was answered: add --sample 5 to measure")
    elif found.new:
        cost = "not known: give the model a price" if found.new_cost is None else f"{found.new_cost:.2f}"
        print(f"about {found.new_tokens:,} new tokens, by the mean of the answered calls; cost {cost}")
