"""What a run would still ask, one prompt tried, and questions asked without writing rows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import islice

from cai.core.plugins import not_loaded
from cai.core.types import Failure, Message, Prompt, Trace
from cai.data.prompts import read_prompts
from cai.pipeline.generate import Work, prepare, prompt_trace, prompt_traces
from cai.pipeline.pairs import new_calls
from cai.runs.folder import Run
from cai.runs.journal import Journal
from cai.runs.journaled import Unasked
from cai.runs.models import Way
from cai.runs.progress import Progress
from cai.runs.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would still ask: calls at most, tokens and cost at the mean of the calls that are answered already."""

    prompts: int
    answered: int
    """Calls that the journal has the answer to."""
    new: int
    new_tokens: int | None
    """None where nothing is answered yet, so that there is no mean."""
    new_cost: float | None
    not_loaded: tuple[str, ...] = ()
    """Code that the recipe names and that was not loaded; calls to it count as new."""


async def estimate(recipe: Recipe, run: Run, sample: int = 0) -> Estimate:
    """Count the calls of a run. Asks nothing, unless `sample` prompts may be asked to measure by.

    Answers of the sample are kept like any other. Within `without_code` no code from outside is loaded, and calls to
    models of such code count as new.
    """
    progress = Progress()
    with Journal(run.path.parent / "journal.sqlite") as journal:
        if sample:
            await _ask_first(sample, await prepare(recipe, journal, Progress()))
        work = await prepare(recipe, journal, progress, by=Unasked)
        try:
            prompts, new = await _count_calls(work, progress)
        finally:
            await work.close()
    used = [tally.usage for tally in progress.tallies.values()]
    tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in used)
    costs = [model.cost for model in work.models.values()]
    spent = None if None in costs else sum(cost or 0.0 for cost in costs)
    share = new / progress.found if progress.found else None
    return Estimate(
        prompts=prompts,
        answered=progress.found,
        new=new,
        new_tokens=None if share is None else round(tokens * share),
        new_cost=None if share is None or spent is None else round(spent * share, 4),
        not_loaded=not_loaded(),
    )


async def _count_calls(work: Work, progress: Progress) -> tuple[int, int]:
    """Prompts, and calls at most that the journal has no answer to."""
    prompts = new = 0
    for prompt in read_prompts(work.recipe.prompts):
        if isinstance(prompt, Failure):
            continue
        prompts += 1
        before = progress.found
        lives = await prompt_traces(work, prompt)
        whole = sum(trace_calls(life) for life in lives if isinstance(life, Trace))
        if unasked := sum(isinstance(life, Failure) and life.kind == "unasked" for life in lives):
            new += unasked * work.calls - (progress.found - before - whole)
        new += await new_calls(work.recipe, work.gates, work.panel, lives) if work.panel else 0
    return prompts, new


def trace_calls(trace: Trace) -> int:
    return 1 + sum((step.critique is not None) + (step.revision is not None) for step in trace.steps)


async def ask_all(recipe: Recipe, run: Run, by: Way) -> None:
    """Take every prompt as far as it gets when models are asked `by` another way; writes no rows."""
    with Journal(run.path.parent / "journal.sqlite") as journal:
        work = await prepare(recipe, journal, Progress(), by=by)
        try:
            for prompt in read_prompts(recipe.prompts):
                if isinstance(prompt, Prompt):
                    await prompt_traces(work, prompt)
        finally:
            await work.close()


async def _ask_first(count: int, work: Work) -> None:
    prompts = (prompt for prompt in read_prompts(work.recipe.prompts) if isinstance(prompt, Prompt))
    try:
        await asyncio.gather(*(prompt_traces(work, prompt) for prompt in islice(prompts, count)))
    finally:
        await work.close()


async def try_prompt(recipe: Recipe, run: Run, text: str) -> Trace | Failure:
    """One prompt's trace under a recipe, through the same journal as the runs. Raises Mistake."""
    with Journal(run.path.parent / "journal.sqlite") as journal:
        work = await prepare(recipe, journal, Progress())
        try:
            return await prompt_trace(work, Prompt("try", (Message("user", text),)), 0)
        finally:
            await work.close()
