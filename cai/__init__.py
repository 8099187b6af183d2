"""Constitutional AI and RLAIF: a constitution in, a preference dataset you can defend out.

`import cai` loads nothing else; each name is loaded when it is first used. Functions that ask models are asynchronous,
and each has a synchronous form whose name ends in `_sync`, for notebooks and scripts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cai.checks.run.check import check_pairs as check_pairs
    from cai.constitution.principles import load_constitution as load_constitution
    from cai.core.types import Constitution, Failure, Pair, Principle, Prompt, Trace, Verdict
    from cai.pipeline.estimate import estimate as estimate
    from cai.pipeline.estimate import try_prompt as try_prompt
    from cai.pipeline.judge_card import measure_judges as measure_judges
    from cai.pipeline.run import run as run
    from cai.pipeline.sync import estimate_sync, measure_judges_sync, run_sync, try_prompt_sync
    from cai.runs.folder import Run
    from cai.runs.judge_card import JudgeCard
    from cai.runs.manifest import Manifest
    from cai.runs.recipe import Recipe
    from cai.runs.recipe import load_recipe as load_recipe

_MODULES = {
    "Constitution": "cai.core.types",
    "Failure": "cai.core.types",
    "JudgeCard": "cai.runs.judge_card",
    "Manifest": "cai.runs.manifest",
    "Pair": "cai.core.types",
    "Principle": "cai.core.types",
    "Prompt": "cai.core.types",
    "Recipe": "cai.runs.recipe",
    "Run": "cai.runs.folder",
    "Trace": "cai.core.types",
    "Verdict": "cai.core.types",
    "check_pairs": "cai.checks.run.check",
    "estimate": "cai.pipeline.estimate",
    "estimate_sync": "cai.pipeline.sync",
    "load_constitution": "cai.constitution.principles",
    "load_recipe": "cai.runs.recipe",
    "measure_judges": "cai.pipeline.judge_card",
    "measure_judges_sync": "cai.pipeline.sync",
    "run": "cai.pipeline.run",
    "run_sync": "cai.pipeline.sync",
    "try_prompt": "cai.pipeline.estimate",
    "try_prompt_sync": "cai.pipeline.sync",
}
"""Where each public name is defined."""

__all__ = [
    "Constitution", "Failure", "JudgeCard", "Manifest", "Pair", "Principle", "Prompt", "Recipe", "Run", "Trace",
    "Verdict", "check_pairs", "estimate", "estimate_sync", "load_constitution", "load_recipe", "measure_judges",
    "measure_judges_sync", "run", "run_sync", "try_prompt", "try_prompt_sync",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'cai' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
