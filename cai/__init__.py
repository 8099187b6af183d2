"""Constitutional AI and RLAIF: a constitution in, a preference dataset you can defend out.

Left out on purpose: importing anything. `import cai` costs nothing; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cai.constitution.principles import load as load_constitution
    from cai.core.types import Constitution, Pair, Prompt, Trace
    from cai.pipeline.generate import run
    from cai.runs.folder import Run
    from cai.runs.recipe import load as load_recipe

_HOMES = {
    "Constitution": "cai.core.types",
    "Pair": "cai.core.types",
    "Prompt": "cai.core.types",
    "Run": "cai.runs.folder",
    "Trace": "cai.core.types",
    "load_constitution": "cai.constitution.principles:load",
    "load_recipe": "cai.runs.recipe:load",
    "run": "cai.pipeline.generate",
}

__all__ = ["Constitution", "Pair", "Prompt", "Run", "Trace", "load_constitution", "load_recipe", "run"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cai' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute or name)
