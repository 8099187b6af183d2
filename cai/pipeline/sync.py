"""Synchronous forms of the functions that ask models, for notebooks and scripts.

A notebook has an event loop that is already running, where `asyncio.run` is refused. There the coroutine runs in a
thread with an event loop of its own; elsewhere it runs in this thread, so that Ctrl-C works as usual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cai.core.types import Failure, Trace
from cai.pipeline.estimate import Estimate, estimate, try_prompt
from cai.pipeline.judge_card import measure_judges
from cai.pipeline.run import run
from cai.runs.budget import Budget
from cai.runs.folder import Run
from cai.runs.judge_card import JudgeCard
from cai.runs.manifest import Manifest
from cai.runs.progress import Progress
from cai.runs.recipe import Recipe

Result = TypeVar("Result")


def run_sync(recipe: Recipe, folder: Run, progress: Progress | None = None, budget: Budget | None = None) -> Manifest:
    """`cai.run`, waited for: do the recipe whole; the manifest. Raises Mistake, BudgetReached; what is done is kept."""
    return _wait(run(recipe, folder, progress, budget))


def try_prompt_sync(recipe: Recipe, folder: Run, text: str) -> Trace | Failure:
    """`cai.try_prompt`, waited for: one prompt's trace under a recipe. Raises Mistake."""
    return _wait(try_prompt(recipe, folder, text))


def estimate_sync(recipe: Recipe, folder: Run, sample: int = 0) -> Estimate:
    """`cai.estimate`, waited for: the calls that a run would make. Raises Mistake."""
    return _wait(estimate(recipe, folder, sample))


def measure_judges_sync(recipe: Recipe, files: list[Path], folder: Run, *, limit: int | None = None) -> JudgeCard:
    """`cai.measure_judges`, waited for: the card of a recipe's judges on labelled pairs. Raises Mistake."""
    return _wait(measure_judges(recipe, files, folder, limit=limit))


def _wait(coroutine: Coroutine[object, object, Result]) -> Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1, thread_name_prefix="cai") as pool:
        return pool.submit(asyncio.run, coroutine).result()
