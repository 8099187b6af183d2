"""How many requests an endpoint serves at once, found by trying: additive increase, multiplicative decrease (AIMD).

Each request has a level: how many were in flight when it was sent, itself included, minus those that were then refused.
A refusal at level n means that fewer than n fit. Requests sent before the limit was lowered belong to the same burst
and do not lower it again. A server may also refuse at random, whatever the load: so a refusal at level n counts only if
most of the latest requests at level n or above were refused, and more than the share refused below n makes likely.
Requests still in flight count as served, because refusals come back first.

Left out on purpose: latency as a signal. A server that queues instead of refusing needs no limit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import comb, inf

START = 32
"""The first limit; it doubles with every round of answers until the first refusal."""
SHRINK = 0.85
"""The limit after a refusal, as a share of the refused level: within 20 % of what fits, and seldom refused again."""
PATIENCE = (1.0, 60.0)
"""Seconds before a refused level is tried again: the first time, and at most, as it doubles with each refusal."""
LATEST = 100
"""Latest answers that are used to tell refusals for load from random ones."""
RANDOM_CHANCE = 1e-6
"""A refusal counts as one for load if random refusals would give this many with a smaller probability than this."""
SAME_LEVEL = 0.2
"""Levels that differ by less than this share count as the same."""


@dataclass(slots=True)
class Ticket:
    """A request in flight: its number in the order of sending, and its level."""

    number: int
    level: int


class ConcurrencyLimit:
    """The state machine. Requests and answers are reported to it, with times as numbers; it never waits."""

    def __init__(self, most: int, start: int = START) -> None:
        self._most, self._limit, self._doubling = most, float(min(start, most)), True
        self._in_flight: dict[int, Ticket] = {}
        self._sent = self._filled = 0  # numbers of the last request, and of the last that filled the limit
        self._burst = 0  # the number of the last request that was in flight when the limit was lowered
        self._latest: deque[tuple[int, bool]] = deque(maxlen=LATEST)  # level, and whether it was served
        self._ceiling, self._again_at, self._patience = inf, 0.0, 0.0

    @property
    def limit(self) -> int:
        """How many may be in flight at once, between 1 and `most`."""
        return int(self._limit)

    @property
    def in_flight(self) -> int:
        """How many are in flight."""
        return len(self._in_flight)

    @property
    def free(self) -> bool:
        """Whether one more may be sent."""
        return len(self._in_flight) < int(self._limit)

    def send(self) -> Ticket:
        """One more is sent."""
        self._sent += 1
        ticket = self._in_flight[self._sent] = Ticket(self._sent, len(self._in_flight) + 1)
        if ticket.level >= int(self._limit):
            self._filled = self._sent
        return ticket

    def served(self, ticket: Ticket, now: float) -> None:
        """It was answered: raise the limit, if the limit was what made others wait."""
        self.lost(ticket)
        self._latest.append((ticket.level, True))
        if ticket.number <= self._filled and self._limit < self._most:
            # until the refused level may be tried again, only up to just below it
            most = self._most if now >= self._again_at else min(self._most, max(self._ceiling - 1, self._limit))
            self._limit = min(most, self._limit + (1 if self._doubling else 1 / self._limit))

    def refused(self, ticket: Ticket, now: float) -> bool:
        """It was refused for load. Returns whether that lowers the limit, which only the first of a burst can do."""
        self.lost(ticket)
        self._latest.append((ticket.level, False))
        for other in self._in_flight.values():
            if other.number > ticket.number:
                other.level -= 1  # the refused request was never in the server beside it
        if ticket.number <= self._burst or self._is_random(ticket.level):
            return False
        self._burst = self._sent
        again = abs(ticket.level - self._ceiling) <= SAME_LEVEL * ticket.level + 1
        self._patience = min(PATIENCE[1], self._patience * 2) if again else PATIENCE[0]
        self._ceiling, self._again_at = ticket.level, now + self._patience
        self._limit, self._doubling = max(1.0, SHRINK * min(self._limit, ticket.level)), False
        return True

    def _is_random(self, level: int) -> bool:
        in_flight = [ticket.level for ticket in self._in_flight.values()]
        above = [served for other, served in self._latest if other >= level] + [
            True for other in in_flight if other >= level
        ]
        below = [served for other, served in self._latest if other < level] + [
            True for other in in_flight if other < level
        ]
        refused = above.count(False)
        if 3 * refused < 2 * len(above):
            return True
        usual = below.count(False) / len(below) if below else 0.0
        chances = (
            comb(len(above), k) * usual**k * (1 - usual) ** (len(above) - k) for k in range(refused, len(above) + 1)
        )
        return sum(chances) > RANDOM_CHANCE

    def lost(self, ticket: Ticket) -> None:
        """It ended in a way that says nothing about load: a time-out, a reset, an error of the server."""
        self._in_flight.pop(ticket.number, None)
