"""Money and limits: what calls cost, and when to stop before a limit on calls, tokens or cost is passed.

Each request claims the most it can cost before it is sent and settles for what it did cost, whether its answer was
good, was thrown away or never came; so requests in flight together cannot pass a limit either. What is already in the
journal costs nothing and claims nothing.

Prices are not guessed: a price comes from the recipe or from genai-prices, else it is reported as unknown.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Annotated

from pydantic import Field

from cai.core.config import Knobs
from cai.core.errors import BudgetReached
from cai.core.types import Usage

LONG = 400
"""Bytes of a request from which its tokens say something about the text."""


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
    """What one model was asked through the journal: new calls and what they used and cost, and answers found there.

    A call is one question; it takes as many requests as it is tried, and a judge's call may take several.
    """

    asked: int = 0
    found: int = 0
    prompt_tokens: int = 0
    """Read for the answers of the new calls."""
    completion_tokens: int = 0
    """Written for the answers of the new calls."""
    found_prompt_tokens: int = 0
    """Read for the answers that were found, when they were asked."""
    found_completion_tokens: int = 0
    new_cost: float | None = None
    """What all new requests cost, those without a usable answer too; None where the price is not known."""
    useful_cost: float | None = None
    """The part of `new_cost` that led to answers; the rest is wasted on tries that failed and answers thrown away."""
    requests: int = 0
    """Sent for the new calls."""
    booked_prompt_tokens: int = 0
    """Read by all of these requests."""
    booked_completion_tokens: int = 0
    """Written by all of these requests."""
    estimated: int = 0
    """Requests whose tokens are counted by cai, because the endpoint said nothing that can be believed."""
    unanswered: int = 0
    """Requests that were cut or timed out, counted with the most that they can have used."""

    @property
    def wasted_cost(self) -> float | None:
        """What requests cost that led to no answer."""
        if self.new_cost is None or self.useful_cost is None:
            return None
        return max(0.0, self.new_cost - self.useful_cost)

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
        """Both together; a cost is unknown where that of one with new calls is."""
        both = CallTally()
        for name in _COUNTS:
            setattr(both, name, getattr(self, name) + getattr(other, name))
        for name in _COSTS:
            setattr(both, name, _sum_known(name, self, other))
        return both


_COSTS = ("new_cost", "useful_cost")
_COUNTS = tuple(one.name for one in fields(CallTally) if one.name not in _COSTS)


def _sum_known(name: str, *tallies: CallTally) -> float | None:
    known = [cost for one in tallies if (cost := getattr(one, name)) is not None]
    unknown = any(getattr(one, name) is None and one.asked for one in tallies)
    return None if unknown or not known else sum(known)


@dataclass(slots=True)
class Budget:
    """The limits of one start, and what is claimed: what was spent, and the most that requests in flight can use.

    `calls` counts requests, so that `--max-calls 40` sends at most 40.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    calls: int = 0
    tokens: int = 0
    cost: float = 0.0
    _tokens_per_byte: float = 0.5
    """The most seen so far; English text has about a quarter."""

    @property
    def limited(self) -> bool:
        """Whether there is any limit; where there is none, nothing need be claimed."""
        return (self.max_calls, self.max_tokens, self.max_cost) != (None, None, None)

    def claim(self, size: int, max_tokens: int, price: Price | None) -> Usage:
        """Set aside the most that a request of `size` bytes can use. Raises BudgetReached where that passes a limit."""
        most = Usage(int(size * self._tokens_per_byte) + 1, max_tokens)
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

    def settle(self, claimed: Usage, used: Usage, price: Price | None, size: int = 0) -> None:
        """Give back what was claimed and not used. `size` is that of a request whose prompt tokens are known."""
        self._add(used, price.of(used) if price else 0.0)
        self._add(claimed, price.of(claimed) if price else 0.0, sign=-1)
        if size >= LONG:  # of a short one, the chat template's own tokens are most
            self._tokens_per_byte = max(self._tokens_per_byte, used.prompt_tokens / size)

    def _add(self, usage: Usage, cost: float, *, calls: int = 0, sign: int = 1) -> None:
        self.calls += calls
        self.tokens += sign * (usage.prompt_tokens + usage.completion_tokens)
        self.cost += sign * cost


_CURRENT: ContextVar[Booking] = ContextVar("booking")


class CurrentBooking:
    """The Meter of a model that several roles share: it books for the role whose call it is."""

    def claim(self, size: int, max_tokens: int) -> Usage:
        return _CURRENT.get().claim(size, max_tokens)

    def settle(self, claimed: Usage, used: Usage, size: int = 0) -> None:
        _CURRENT.get().settle(claimed, used, size)


class Booking:
    """The Meter of one role: books every request in its tally, and claims it from the budget if that has a limit."""

    def __init__(self, tally: CallTally, budget: Budget | None, price: Price | None) -> None:
        self._tally, self._price = tally, price
        self._budget = budget if budget and budget.limited else None
        tally.new_cost = tally.useful_cost = None if price is None else 0.0

    def begin(self) -> None:
        """What the model claims from here on, in this task, is this role's."""
        _CURRENT.set(self)

    def claim(self, size: int, max_tokens: int) -> Usage:
        """See `Meter.claim`; also counts the request."""
        if self._budget is None:
            claimed = Usage(size // 2 + 1, max_tokens)
        else:
            claimed = self._budget.claim(size, max_tokens, self._price)
        self._tally.requests += 1
        return claimed

    def settle(self, claimed: Usage, used: Usage, size: int = 0) -> None:
        """See `Meter.settle`."""
        if self._budget is not None:
            self._budget.settle(claimed, used, self._price, 0 if used.estimated or used is claimed else size)
        tally = self._tally
        tally.estimated += used.estimated
        tally.unanswered += used is claimed
        tally.booked_prompt_tokens += used.prompt_tokens
        tally.booked_completion_tokens += used.completion_tokens
        if self._price is not None:
            tally.new_cost = (tally.new_cost or 0.0) + self._price.of(used)
