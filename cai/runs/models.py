"""Opens the models of a recipe, each asked through the journal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from cai.core import config as outside
from cai.core import plugins
from cai.core.errors import Mistake
from cai.core.plugin_types import Backend
from cai.core.types import Model
from cai.runs.budget import Budget, Price, listed_price
from cai.runs.journal import Journal, Journaled, Tally
from cai.runs.progress import Progress as Progress
from cai.runs.recipe import Choice

_LOOPBACK = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)", re.IGNORECASE)


Way = Callable[[Model], Model] | None
"""What stands between the journal and a model: nothing, or what asks it in another way or not at all."""


def open_all(
    roles: Mapping[str, Choice], journal: Journal, progress: Progress, budget: Budget | None, *, by: Way = None
) -> dict[str, Journaled]:
    """The model of each role, asked through the journal; roles of the same choice share one. Raises Mistake."""
    models: dict[str, Journaled] = {}
    for role, choice in roles.items():
        if twins := [models[other] for other in models if roles[other] == choice]:
            models[role] = twins[0]
            continue
        price = _price(choice, budget)
        model = open_model(choice, role)
        progress.tallies[role] = Tally()
        models[role] = journal.through(by(model) if by else model, progress.tallies[role], budget, price)
    progress.status = lambda: _status(models)
    return models


def open_model(choice: Choice, role: str) -> Any:
    """The Model a recipe chose, its options checked by its own backend. Raises Mistake."""
    backend = plugins.find("backends", choice.backend, Backend)
    return backend.open(outside.noun(outside.Document(f"recipe: {role}", choice.options, None), backend.options))


def _price(choice: Choice, budget: Budget | None) -> Price | None:
    price = choice.price
    if price is None and not _LOOPBACK.match(str(choice.options.get("base_url", ""))):
        # what this machine serves is in no price list, whatever it is called
        price = listed_price(str(choice.options.get("model", "")))
    if price is None and budget and budget.max_cost is not None:
        fix = "add `price: {input: ..., output: ...}` (per million tokens) to the model in the recipe"
        raise Mistake("--max-cost", f"the price of {choice.options.get('model', choice.backend)} is not known", fix)
    return price


def _status(models: dict[str, Journaled]) -> Mapping[str, float]:
    total: Counter[str] = Counter()
    for model in _distinct(models).values():
        total.update(model.status())
    return total


def _distinct(models: dict[str, Journaled]) -> dict[str, Journaled]:
    first: dict[int, str] = {}
    for role, model in models.items():
        first.setdefault(id(model), role)
    return {role: models[role] for role in first.values()}
