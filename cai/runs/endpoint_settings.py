"""How the endpoints of a recipe are asked in one start: by batches, or waiting for limits. It changes no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cai.core.errors import Mistake
from cai.runs.recipe import Recipe

BATCHING = ("openai", "anthropic")
"""Backends that can use a batch API."""


def by_batch(recipe: Recipe, folder: Path) -> Recipe:
    """The same recipe, each of its models at a vendor asked by batches that are noted in `folder`. Raises Mistake."""
    return _at_endpoints(recipe, "--batch", {"batch": str(folder)})


def waiting(recipe: Recipe) -> Recipe:
    """The same recipe, each of its models at an endpoint waiting for limits of a day. Raises Mistake."""
    return _at_endpoints(recipe, "--wait", {"wait": True})


def _at_endpoints(recipe: Recipe, option: str, settings: dict[str, object]) -> Recipe:
    found = False

    def changed(value: Any) -> Any:
        nonlocal found
        if isinstance(value, dict) and value.get("backend") in BATCHING:
            found = True
            return value | settings
        if isinstance(value, dict):
            return {key: changed(inner) for key, inner in value.items()}
        return [changed(inner) for inner in value] if isinstance(value, list | tuple) else value

    turned = Recipe.model_validate(changed(recipe.model_dump(exclude_unset=True)))
    if not found:
        raise Mistake(option, "no model of this recipe is at an endpoint", f"it is for {' and '.join(BATCHING)}")
    return turned
