"""Builds the manifest of a run: where its rows came from, whether its counts add up, and what changed in length."""

from __future__ import annotations

import platform
import time
from array import array
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from statistics import median

from pydantic import BaseModel

from cai.constitution.principles import data
from cai.core import stats
from cai.core.errors import CaiError, TooManyFailures
from cai.core.seeds import digest
from cai.core.types import Constitution
from cai.data.prompts import STAGE, prompts_digest
from cai.runs.judge_card import TemplateName
from cai.runs.manifest import DigestedPath, LengthChange, Manifest, StageCount, constitution_record, failure_shares
from cai.runs.recipe import Recipe
from cai.templates.template import Template

CALLS = ("draft", "critique", "revise")
HARMLESS = frozenset({"duplicate", "duplicate_id", "abstained"})
"""Kinds of failure that say nothing about the run's health."""


PACKAGES = ("cai", "torch", "transformers", "trl", "datasets", "pydantic", "jinja2", "tenacity", "tokenizers")


def provenance(
    recipe: Recipe, constitution: Constitution, templates: Mapping[str, Template], folder: Path, started: float
) -> Manifest:
    """A manifest that says where the rows come from: digests, versions, seed. Its recipe is that of the run folder."""
    source = recipe.prompts
    return Manifest(
        cai=metadata.version("cai"),
        name=folder.name,
        started=timestamp(started),
        seed=recipe.seed,
        recipe=DigestedPath(str(folder / "recipe.yaml"), digest(recipe.model_dump(mode="json"))),
        constitution=constitution_record(data(constitution)),
        templates={
            stage: TemplateName(recipe.templates[stage], template.digest) for stage, template in templates.items()
        },
        prompts=DigestedPath(source.path, prompts_digest(source)),
        packages={"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
    )


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


ROW_KEYS = ("seed", "draft", "critique", "revise", "gates", "sample", "pairs", "judge", "writer", "critic")
"""Keys of a recipe that decide the rows of a run, besides its constitution, templates and prompts."""
SPEED_KEYS = (
    "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "read_timeout", "connect_timeout", "batch",
    "batch_poll", "wait", "price",
)  # fmt: skip
"""Options of a model that decide how fast it is asked and what it costs, and no answer."""


def _deciding(value: object) -> object:
    """A part of a recipe without the settings of a model that change no answer."""
    if isinstance(value, BaseModel):
        return _deciding(value.model_dump())
    if isinstance(value, dict):
        return {name: _deciding(inner) for name, inner in value.items() if name not in SPEED_KEYS}
    return [_deciding(inner) for inner in value] if isinstance(value, list | tuple) else value


def row_differences(before: Manifest, after: Manifest, old: Recipe | None, new: Recipe) -> list[str]:
    """What makes the rows of two runs of one name different: `seed`, `constitution concise`, `prompts`, ..."""
    found = []
    if old is not None:
        found = [key for key in ROW_KEYS if _deciding(getattr(old, key)) != _deciding(getattr(new, key))]
    elif before.recipe.digest != after.recipe.digest:
        found = ["recipe"]
    if before.constitution.digest != after.constitution.digest:
        found.append(f"constitution {after.constitution.name}")
    if before.prompts.digest != after.prompts.digest:
        found.append(f"prompts {after.prompts.path}")
    changed = [stage for stage, one in after.templates.items() if before.templates.get(stage, one).digest != one.digest]
    return found + [f"template {stage}" for stage in changed]


def reconciled(recipe: Recipe, rows: int, failed: Counter[str], traces: int) -> dict[str, StageCount]:
    """Counts by stage, `in = out + failed`. Raises where rows and failures do not add up: that would be our bug."""
    counts = {"read": StageCount(rows, rows - failed[STAGE], failed[STAGE])}
    left = counts["read"].out * (recipe.sample.answers if recipe.sample else recipe.draft.samples)
    for stage in _calls(recipe):
        counts[stage] = StageCount(left, left - failed[stage], failed[stage])
        left -= failed[stage]
    if left != traces:
        raise CaiError(f"counts do not reconcile: {left} traces expected, {traces} written; please report this")
    return counts


def _calls(recipe: Recipe) -> tuple[str, ...]:
    if recipe.sample:
        return ("sample",)
    return CALLS if recipe.critique.ask else ("draft", "revise")


def length_change(before: array[int], after: array[int]) -> LengthChange | None:
    """Words in drafts and in final answers; None where there is no trace."""
    if not before:
        return None
    mean, pairs = stats.change(before, after), list(zip(before, after, strict=True))
    return LengthChange(
        unit="words",
        n=mean.n,
        draft_median=float(median(before)),
        final_median=float(median(after)),
        change_mean=mean.value,
        low=mean.low,
        high=mean.high,
        shorter=sum(b > a for b, a in pairs),
        longer=sum(b < a for b, a in pairs),
    )


def too_many_failures(recipe: Recipe, manifest: Manifest) -> TooManyFailures | None:
    """The error a finished run ends with when more failed than the recipe allows; duplicates and gates do not count."""
    shares = failure_shares(manifest, HARMLESS)
    over = {what: both for what, both in shares.items() if both[0] > recipe.max_failure_share * both[1]}
    if not over:
        return None
    said = " and ".join(
        f"{failed} of {whole} {what} failed ({failed / whole:.1%})" for what, (failed, whole) in over.items()
    )
    most = f"max_failure_share is {recipe.max_failure_share:.1%}"
    return TooManyFailures(f"{said}; {most}; the reasons are in failures.jsonl")
