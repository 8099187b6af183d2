"""Constitutional AI and RLAIF: a constitution in, a preference dataset you can defend out.

Left out on purpose: importing anything. `import cai` costs nothing; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cai.constitution import load as load_constitution
    from cai.pipeline import run
    from cai.recipe import load as load_recipe
    from cai.runs import Run
    from cai.types import Constitution, Pair, Prompt, Trace

_HOMES = {
    "Constitution": "cai.types",
    "Pair": "cai.types",
    "Prompt": "cai.types",
    "Run": "cai.runs",
    "Trace": "cai.types",
    "load_constitution": "cai.constitution:load",
    "load_recipe": "cai.recipe:load",
    "run": "cai.pipeline",
}

__all__ = ["Constitution", "Pair", "Prompt", "Run", "Trace", "load_constitution", "load_recipe", "run"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cai' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute or name)
