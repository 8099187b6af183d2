"""Opens the models of a recipe, each asked through the journal."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from cai.core.config import Document, parse_options
from cai.core.errors import Mistake, Permanent
from cai.core.plugin_types import Backend
from cai.core.plugins import NotLoaded, find_plugin
from cai.core.types import Completion, Model, Request, Score
from cai.runs.budget import Budget, CallTally, Price, listed_price
from cai.runs.journal import Journal
from cai.runs.journaled import Journaled, through_journal
from cai.runs.progress import Progress
from cai.runs.recipe import ModelChoice

_LOOPBACK = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)", re.IGNORECASE)


SPEAK_OPENAI = (
    "vllm", "sglang", "llamacpp", "llama.cpp", "llama_cpp", "ollama", "tgi", "lmstudio", "together", "groq", "mistral",
    "deepseek", "openrouter", "azure", "fireworks", "litellm",
)  # fmt: skip
"""Servers and vendors that are no backend of their own."""

Way = Callable[[Model], Model] | None
"""What stands between the journal and a model: nothing, or what asks it in another way or not at all."""


async def open_all(
    roles: Mapping[str, ModelChoice], journal: Journal, progress: Progress, budget: Budget | None, *, by: Way = None
) -> dict[str, Journaled]:
    """The model of each role, asked through the journal; roles of the same choice share one. Raises Mistake.

    Each role has a tally of its own. Where one cannot be opened, those opened before are closed.
    """
    models: dict[str, Journaled] = {}
    journal.on_damage = progress.note
    try:
        for role, choice in roles.items():
            price, tally = _price(choice, budget), CallTally()
            if twins := [models[other].model for other in models if roles[other] == choice]:
                model = twins[0]
            else:
                model = by(open_model(choice, role)) if by else open_model(choice, role)
            progress.tallies[role] = tally
            models[role] = through_journal(journal, model, tally, budget, price)
    except BaseException:
        await close_all(models)
        raise
    progress.status = lambda: _status(models)
    return models


def open_model(choice: ModelChoice, role: str) -> Model:
    """The model that a recipe chose, its options checked by its own backend. Raises Mistake.

    Where its code may not be loaded, a model that answers nothing.
    """
    if choice.backend.lower() in SPEAK_OPENAI:
        fix = "it speaks OpenAI's API: set `backend: openai` and `base_url` to its address, such as http://host:8000/v1"
        raise Mistake(f"recipe: {role}.backend", f"there is no backend {choice.backend!r}", fix)
    try:
        backend = find_plugin("backends", choice.backend, Backend)
        return backend.open(parse_options(Document(f"recipe: {role}", choice.options, None), backend.options))
    except NotLoaded as error:
        return _NotLoadedModel(error.where)


async def close_all(models: Mapping[str, Journaled]) -> None:
    """Close every model once; all are closed, whichever fails."""
    closed = await asyncio.gather(*(model.close() for model in distinct_roles(models).values()), return_exceptions=True)
    for failed in closed:
        if isinstance(failed, BaseException):
            raise failed


def distinct_roles(models: Mapping[str, Journaled]) -> dict[str, Journaled]:
    """Each model once, under the first of its roles."""
    first: dict[int, str] = {}
    for role, model in models.items():
        first.setdefault(id(model.model), role)
    return {role: models[role] for role in first.values()}


class _NotLoadedModel:
    """Stands for a model whose code was not loaded."""

    concurrency = 1

    def __init__(self, name: str) -> None:
        self.identity: Mapping[str, str] = {"engine": "not loaded", "model": name}

    async def complete(self, request: Request) -> Completion:
        raise Permanent("unasked", "its code was not loaded")

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        raise Permanent("unasked", "its code was not loaded")

    def status(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        return None


def _price(choice: ModelChoice, budget: Budget | None) -> Price | None:
    price = choice.price
    given = choice.options.get("base_url", "")
    address = given[0] if isinstance(given, list | tuple) and given else given
    if price is None and not _LOOPBACK.match(str(address)):
        # what this machine serves is in no price list, whatever it is called
        price = listed_price(str(choice.options.get("model", "")))
    if price is None and budget and budget.max_cost is not None:
        fix = "add `price: {input: ..., output: ...}` (per million tokens) to the model in the recipe"
        raise Mistake("--max-cost", f"the price of {choice.options.get('model', choice.backend)} is not known", fix)
    return price


def _status(models: dict[str, Journaled]) -> Mapping[str, float]:
    total: Counter[str] = Counter()
    for model in distinct_roles(models).values():
        total.update(model.status())
    return total
