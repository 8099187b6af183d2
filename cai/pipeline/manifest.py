"""What a run says of itself: where its rows came from, whether its counts add up, and what changed.

Left out on purpose: anything that only a report would need. The manifest is what a reviewer asks for first.
"""

from __future__ import annotations

import platform
import time
from array import array
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from statistics import median

from cai.constitution import principles as constitution
from cai.core import stats
from cai.core.errors import CaiError, TooManyFailures
from cai.core.seeds import digest
from cai.core.types import Constitution
from cai.data import prompts as sources
from cai.runs.folder import Manifest
from cai.runs.recipe import Recipe
from cai.templates.template import Template

CALLS = ("draft", "critique", "revise")
HARMLESS = ("duplicate", "duplicate_id", "abstained")
"""Kinds of failure that say nothing about the run's health."""


PACKAGES = ("cai", "torch", "transformers", "trl", "datasets", "pydantic", "jinja2", "tenacity", "tokenizers")


def provenance(
    chosen: Recipe, principles: Constitution, asked: Mapping[str, Template], folder: Path, started: float
) -> Manifest:
    """Where the rows come from: digests, versions, seed. The recipe's path is that of its resolved copy."""
    source = chosen.prompts
    return {
        "cai": metadata.version("cai"),
        "name": folder.name,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seed": chosen.seed,
        "recipe": {"path": str(folder / "recipe.yaml"), "digest": digest(chosen.model_dump(mode="json"))},
        "constitution": constitution.data(principles),
        "templates": {
            stage: {"name": chosen.templates[stage], "digest": template.digest} for stage, template in asked.items()
        },
        "prompts": {"path": source.path, "digest": sources.fingerprint(source)},
        "packages": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
    }


def reconciled(chosen: Recipe, rows: int, failed: Counter[str], traces: int) -> dict[str, dict[str, int]]:
    """Counts by stage, `in = out + failed`. Raises where rows and failures do not add up: that would be our bug."""
    counts = {"read": {"in": rows, "out": rows - failed[sources.STAGE], "failed": failed[sources.STAGE]}}
    lives = counts["read"]["out"] * (chosen.sample.answers if chosen.sample else chosen.draft.samples)
    for stage in _calls(chosen):
        counts[stage] = {"in": lives, "out": lives - failed[stage], "failed": failed[stage]}
        lives -= failed[stage]
    if lives != traces:
        raise CaiError(f"counts do not reconcile: {lives} traces expected, {traces} written; please report this")
    return counts


def _calls(chosen: Recipe) -> tuple[str, ...]:
    if chosen.sample:
        return ("sample",)
    return CALLS if chosen.critique.ask else ("draft", "revise")


def lengths(before: array[int], after: array[int]) -> Manifest:
    """Words in drafts and in final answers: medians, and the paired mean change with its interval."""
    if not before:
        return {}
    middle = [float(median(side)) for side in (before, after)]
    moved = stats.change(before, after)
    pairs = list(zip(before, after, strict=True))
    shorter, longer = sum(b > a for b, a in pairs), sum(b < a for b, a in pairs)
    medians = {"unit": "words", "n": moved.n, "draft_median": middle[0], "final_median": middle[1]}
    spread = {"change_mean": moved.value, "low": moved.low, "high": moved.high}
    return {"lengths": medians | spread | {"shorter": shorter, "longer": longer}}


def too_many_failures(chosen: Recipe, said: Manifest) -> TooManyFailures | None:
    """The error a finished run ends with when more failed than the recipe allows; duplicates and gates do not count."""
    failed = sum(stage["failed"] for name, stage in said["counts"].items() if name != "pair")
    failed -= sum(said["failures"].get(kind, 0) for kind in HARMLESS)
    share = failed / max(1, said["counts"]["read"]["in"])
    if share <= chosen.max_failure_share:
        return None
    most = f"max_failure_share is {chosen.max_failure_share:.1%}"
    return TooManyFailures(f"{failed} prompts failed ({share:.1%}; {most}); the reasons are in failures.jsonl")
