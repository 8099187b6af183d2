"""Money and limits: what calls cost, and when to stop before a limit on calls, tokens or cost is passed.

A call claims the most it can cost before it is sent and settles for what it did cost, so that calls in flight together
cannot pass a limit either. What is already in the journal costs nothing and claims nothing.

Prices are not guessed: a price comes from the recipe or from genai-prices, else it is reported as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from cai.core.config import Knobs
from cai.core.errors import BudgetReached
from cai.core.types import Request, Usage


class Price(Knobs):
    """What a million tokens cost, in the currency of your choice."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]

    def of(self, usage: Usage) -> float:
        """The cost of one call."""
        return (usage.prompt_tokens * self.input + usage.completion_tokens * self.output) / 1e6


def listed_price(model: str) -> Price | None:
    """The price of a paid model by its name, where genai-prices is installed and knows it."""
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        return None
    try:
        read = calc_price(Tokens(input_tokens=1_000_000, output_tokens=0), model_ref=model).total_price
        written = calc_price(Tokens(input_tokens=0, output_tokens=1_000_000), model_ref=model).total_price
    except LookupError:
        return None
    return Price(input=float(read), output=float(written))


@dataclass(slots=True)
class CallTally:
    """What one model was asked through the journal: new calls and what they used and cost, and answers found there."""

    asked: int = 0
    found: int = 0
    prompt_tokens: int = 0
    """Read by the new calls."""
    completion_tokens: int = 0
    """Written by the new calls."""
    found_prompt_tokens: int = 0
    """Read for the answers that were found, when they were asked."""
    found_completion_tokens: int = 0
    new_cost: float | None = None
    """What the new calls cost; None where the price is not known."""

    @property
    def usage(self) -> Usage:
        """Tokens of all answers, new and found."""
        return Usage(
            self.prompt_tokens + self.found_prompt_tokens, self.completion_tokens + self.found_completion_tokens
        )

    def add(self, new: bool, usage: Usage) -> None:
        """Count an answer that was asked for (`new`) or found; asking itself is counted when it begins."""
        if new:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            return
        self.found += 1
        self.found_prompt_tokens += usage.prompt_tokens
        self.found_completion_tokens += usage.completion_tokens

    def plus(self, other: CallTally) -> CallTally:
        """Both together; the cost is unknown where that of one with new calls is."""
        unknown = any(one.new_cost is None and one.asked for one in (self, other))
        known = [one.new_cost for one in (self, other) if one.new_cost is not None]
        return CallTally(
            self.asked + other.asked,
            self.found + other.found,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.found_prompt_tokens + other.found_prompt_tokens,
            self.found_completion_tokens + other.found_completion_tokens,
            None if unknown or not known else sum(known),
        )


@dataclass(slots=True)
class Budget:
    """The limits of one start, and what is claimed: what was spent, and the most that calls in flight can use."""

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    calls: int = 0
    tokens: int = 0
    cost: float = 0.0
    _tokens_per_character: float = 0.5
    """The most seen so far; English text has about a quarter."""

    @property
    def limited(self) -> bool:
        """Whether there is any limit; where there is none, nothing need be claimed."""
        return (self.max_calls, self.max_tokens, self.max_cost) != (None, None, None)

    def claim(self, request: Request, price: Price | None) -> Usage:
        """Set aside the most that `request` can use. Raises BudgetReached where that would pass a limit."""
        characters = sum(len(message.content) + 20 for message in request.messages)
        most = Usage(int(characters * self._tokens_per_character) + 1, request.sampling.max_tokens)
        cost = price.of(most) if price else 0.0
        for name, after, limit in (
            ("--max-calls", self.calls + 1, self.max_calls),
            ("--max-tokens", self.tokens + most.prompt_tokens + most.completion_tokens, self.max_tokens),
            ("--max-cost", self.cost + cost, self.max_cost),
        ):
            if limit is not None and after > limit:
                raise BudgetReached(f"{name} {limit} would be passed; what is done is kept, and a higher limit goes on")
        self._add(most, cost, calls=1)
        return most

    def settle(self, claimed: Usage, used: Usage, price: Price | None, request: Request) -> None:
        """Give back what was claimed and not used; a call that failed used nothing."""
        self._add(used, price.of(used) if price else 0.0)
        self._add(claimed, price.of(claimed) if price else 0.0, sign=-1)
        characters = sum(len(message.content) for message in request.messages)
        if used.prompt_tokens and characters >= 200:  # below, the chat template's own tokens are most of it
            self._tokens_per_character = max(self._tokens_per_character, used.prompt_tokens / characters)

    def _add(self, usage: Usage, cost: float, *, calls: int = 0, sign: int = 1) -> None:
        self.calls += calls
        self.tokens += sign * (usage.prompt_tokens + usage.completion_tokens)
        self.cost += sign * cost
