"""Limits: never passed, whatever is in flight; what is done is kept, and a higher limit goes on."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.core.errors import BudgetReached, Mistake
from cai.core.types import Usage
from cai.pipeline.estimate import estimate
from cai.pipeline.generate import Progress, generate, prepare
from cai.runs.budget import Budget, Price, listed_price
from cai.runs.folder import Run
from cai.runs.journal import Journal

PRICE = Price(input=1.0, output=2.0)


def run(recipe: Any, folder: Path, budget: Budget) -> Any:
    return asyncio.run(generate(recipe, Run(folder), budget=budget)).as_json()


@pytest.mark.parametrize("limit", [0, 1, 7, 50])
def test_no_more_calls_than_allowed_and_a_higher_limit_goes_on(recipe_of: Any, tmp_path: Path, limit: int) -> None:
    writer = {"backend": "scripted", "script": "scripts:counted", "seconds": 0.001}
    import scripts

    scripts.COUNT.clear()
    with pytest.raises(BudgetReached, match="--max-calls"):
        run(recipe_of(writer=writer), tmp_path / "runs" / "a", Budget(max_calls=limit))
    assert len(scripts.COUNT) == limit
    said = run(recipe_of(writer=writer), tmp_path / "runs" / "a", Budget(max_calls=100 - limit))
    last = said["starts"][-1]["calls"]["writer"]
    assert (last["asked"], last["found"]) == (100 - limit, limit)
    assert said["calls"]["writer"]["asked"] == 100  # the sum over both starts


def test_a_stopped_run_keeps_whole_traces(recipe_of: Any, tmp_path: Path) -> None:
    writer = {"backend": "scripted", "script": "scripts:steady", "concurrency": 2, "seconds": 0.001}
    with pytest.raises(BudgetReached):
        run(recipe_of(writer=writer), tmp_path / "runs" / "a", Budget(max_calls=52))
    kept = list(Run(tmp_path / "runs" / "a").traces())
    assert 9 <= len(kept) <= 10
    assert Run(tmp_path / "runs" / "a").manifest.as_json()["status"] == "interrupted"


def test_cost_is_counted_by_price_and_the_limit_holds(recipe_of: Any, tmp_path: Path) -> None:
    writer = {"backend": "scripted", "script": "scripts:steady", "price": {"input": 1e6, "output": 0}}
    with pytest.raises(BudgetReached, match="--max-cost"):
        run(recipe_of(writer=writer, draft={"max_tokens": 1}), tmp_path / "runs" / "a", Budget(max_cost=500.0))
    spent = Run(tmp_path / "runs" / "a").manifest.as_json()["calls"]["writer"]["new_cost"]
    assert 0 < spent <= 500


def test_a_cost_limit_without_a_price_is_refused_before_any_call(recipe_of: Any, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="price of scripted is not known"):
        run(recipe_of(), tmp_path / "runs" / "a", Budget(max_cost=1.0))


@given(
    limit=st.integers(0, 3000),
    calls=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 200), st.floats(0, 1), st.floats(0, 1)), max_size=30),
    order=st.randoms(),
)
def test_tokens_never_pass_the_limit_whatever_is_in_flight(limit: int, calls: list[Any], order: Any) -> None:
    budget, flying, used = Budget(max_tokens=limit), [], 0
    for characters, most, read, written in calls:
        try:
            claimed = budget.claim(characters, most, PRICE)
        except BudgetReached:
            continue
        flying.append((characters, claimed, Usage(int(read * claimed.prompt_tokens), int(written * most))))
        if order.random() < 0.5:
            size, claimed, usage = flying.pop(order.randrange(len(flying)))
            budget.settle(claimed, usage, PRICE, size)
            used += usage.prompt_tokens + usage.completion_tokens
    for size, claimed, usage in flying:
        budget.settle(claimed, usage, PRICE, size)
        used += usage.prompt_tokens + usage.completion_tokens
    assert used == budget.tokens <= limit


def test_a_price_is_known_or_not_and_never_guessed() -> None:
    pytest.importorskip("genai_prices")
    known = listed_price("gpt-4o-mini")
    assert known is not None
    assert 0 < known.input < known.output
    assert listed_price("my-own-model-7b") is None


def test_what_this_machine_serves_has_no_listed_price(recipe_of: Any, tmp_path: Path) -> None:
    pytest.importorskip("genai_prices")
    with Journal(tmp_path / "j.sqlite") as journal:
        for url in ("https://models.example/v1", "http://localhost:8000/v1"):
            recipe = recipe_of(writer={"backend": "openai", "model": "gpt-4o-mini", "base_url": url})
            with nullcontext() if "example" in url else pytest.raises(Mistake, match="is not known"):
                asyncio.run(prepare(recipe, journal, Progress(), Budget(max_cost=1.0)))


def test_a_dry_run_measures_by_what_was_answered(recipe_of: Any, tmp_path: Path) -> None:
    writer = {"backend": "scripted", "script": "scripts:steady", "price": {"input": 1, "output": 1}}
    recipe, where = recipe_of(writer=writer), Run(tmp_path / "runs" / "a")
    before = asdict(asyncio.run(estimate(recipe, where)))
    assert (before["new"], before["new_tokens"]) == (100, None)
    guess = asdict(asyncio.run(estimate(recipe, where, sample=5)))
    assert (guess["answered"], guess["new"]) == (25, 75)
    assert isinstance(guess["new_tokens"], int)
    said = asyncio.run(generate(recipe, where)).as_json()
    calls = said["calls"]["writer"]
    assert calls["prompt_tokens"] + calls["completion_tokens"] == pytest.approx(guess["new_tokens"], rel=0.1)
    assert said["calls"]["writer"]["new_cost"] == pytest.approx(guess["new_cost"], rel=0.1, abs=1e-3)
