"""How many requests an endpoint serves at once, found by trying: additive increase, multiplicative decrease (AIMD).

Each request carries its level: how many were out when it was sent, itself included, less those that turned out to be
refused. A refusal at level n says that fewer than n fit. Requests that went out before the limit was lowered belong to
the same burst and lower it no further. If of that burst a third or more is served at n or above, the refusal was not
about load (a server that turns away every tenth request whatever the load), and the limit is put back.

Left out on purpose: latency as a signal. A server that queues instead of refusing says nothing here, and needs no help.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

START = 32
"""The first limit; it doubles with every round of answers until the first refusal."""
SHRINK = 0.85
"""What is kept of a level that was refused: within 20 % of what fits, and seldom refused again."""
PATIENCE = (1.0, 60.0)
"""Seconds before a refused level is tried again: at first, and at most after it was refused again and again."""
SAME = 0.2
"""Levels this near to each other count as the same."""


@dataclass(slots=True)
class Ticket:
    """A request that is out: its place in the order of sending, and its level."""

    number: int
    level: int


@dataclass(slots=True)
class Burst:
    """The requests that were out when the limit was lowered, what it was before, and what came back of them since."""

    last: int = 0
    """The number of the last of them."""
    level: float = inf
    limit: float = 0.0
    doubling: bool = True
    refused: int = 0
    served: int = 0
    """Those at `level` or above."""


class Limit:
    """The state machine. It sees requests go out and come back, and times as numbers; it never waits."""

    def __init__(self, most: int, start: int = START) -> None:
        self._most, self._limit, self._doubling = most, float(min(start, most)), True
        self._out: dict[int, Ticket] = {}
        self._sent = self._filled = 0  # numbers of the last request, and of the last that used up the limit
        self._burst = Burst()
        self._ceiling, self._again_at, self._patience = inf, 0.0, 0.0

    @property
    def limit(self) -> int:
        """How many may be out at once, between 1 and `most`."""
        return int(self._limit)

    @property
    def out(self) -> int:
        """How many are."""
        return len(self._out)

    @property
    def free(self) -> bool:
        """Whether one more may go out."""
        return len(self._out) < int(self._limit)

    def send(self) -> Ticket:
        """One more goes out."""
        self._sent += 1
        ticket = self._out[self._sent] = Ticket(self._sent, len(self._out) + 1)
        if ticket.level >= int(self._limit):
            self._filled = self._sent
        return ticket

    def served(self, ticket: Ticket, now: float) -> None:
        """It was answered: more may fit, if the limit was what held others back."""
        self.lost(ticket)
        if ticket.number <= self._burst.last and ticket.level >= self._burst.level:
            self._burst.served += 1
            if 2 * self._burst.served > self._burst.refused:
                self._put_back()
        if ticket.number <= self._filled and self._limit < self._most:
            # while patience lasts, only up to just below what was refused
            most = self._most if now >= self._again_at else min(self._most, max(self._ceiling - 1, self._limit))
            self._limit = min(most, self._limit + (1 if self._doubling else 1 / self._limit))

    def refused(self, ticket: Ticket, now: float) -> bool:
        """It was turned away for load; whether that lowers the limit, which the first of a burst does."""
        self.lost(ticket)
        for other in self._out.values():
            if other.number > ticket.number:
                other.level -= 1  # this one never stood beside it in the server
        if ticket.number <= self._burst.last:
            self._burst.refused += 1
            return False
        self._burst = Burst(self._sent, ticket.level, self._limit, self._doubling, refused=1)
        again = abs(ticket.level - self._ceiling) <= SAME * ticket.level + 1
        self._patience = min(PATIENCE[1], self._patience * 2) if again else PATIENCE[0]
        self._ceiling, self._again_at = ticket.level, now + self._patience
        self._limit, self._doubling = max(1.0, SHRINK * min(self._limit, ticket.level)), False
        return True

    def lost(self, ticket: Ticket) -> None:
        """It came back in a way that says nothing about load: a time-out, a reset, a server's own error."""
        self._out.pop(ticket.number, None)

    def _put_back(self) -> None:
        self._limit, self._doubling = max(self._limit, self._burst.limit), self._burst.doubling
        self._ceiling, self._again_at = inf, 0.0
        self._burst.level = inf
