"""How many requests an endpoint serves at once, found by trying: additive increase, multiplicative decrease (AIMD).

Each request carries its level: how many were out when it was sent, itself included, less those that turned out to be
refused. A refusal at level n says that fewer than n fit, and requests that went out before the limit was lowered belong
to the same burst and lower it no further. A server may also turn requests away whatever the load, every tenth or every
second: so a refusal at level n is believed only when, of the latest requests at n or above, most were refused, and more
than the share refused below n would make likely. Those that are still out count as served: refusals come back first.

Left out on purpose: latency as a signal. A server that queues instead of refusing says nothing here, and needs no help.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import comb, inf

START = 32
"""The first limit; it doubles with every round of answers until the first refusal."""
SHRINK = 0.85
"""What is kept of a level that was refused: within 20 % of what fits, and seldom refused again."""
PATIENCE = (1.0, 60.0)
"""Seconds before a refused level is tried again: at first, and at most after it was refused again and again."""
LATEST = 100
"""Answers that are looked at to tell a full server from a whimsical one."""
DOUBT = 1e-6
"""A refusal is believed where it and its like would be less likely than this, were they whims."""
SAME = 0.2
"""Levels this near to each other count as the same."""


@dataclass(slots=True)
class Ticket:
    """A request that is out: its place in the order of sending, and its level."""

    number: int
    level: int


class ConcurrencyLimit:
    """The state machine. It sees requests go out and come back, and times as numbers; it never waits."""

    def __init__(self, most: int, start: int = START) -> None:
        self._most, self._limit, self._doubling = most, float(min(start, most)), True
        self._out: dict[int, Ticket] = {}
        self._sent = self._filled = 0  # numbers of the last request, and of the last that used up the limit
        self._burst = 0  # the number of the last request that was out when the limit was lowered
        self._latest: deque[tuple[int, bool]] = deque(maxlen=LATEST)  # level, and whether it was served
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
        self._latest.append((ticket.level, True))
        if ticket.number <= self._filled and self._limit < self._most:
            # while patience lasts, only up to just below what was refused
            most = self._most if now >= self._again_at else min(self._most, max(self._ceiling - 1, self._limit))
            self._limit = min(most, self._limit + (1 if self._doubling else 1 / self._limit))

    def refused(self, ticket: Ticket, now: float) -> bool:
        """It was turned away for load; whether that lowers the limit, which only the first of a burst can do."""
        self.lost(ticket)
        self._latest.append((ticket.level, False))
        for other in self._out.values():
            if other.number > ticket.number:
                other.level -= 1  # this one never stood beside it in the server
        if ticket.number <= self._burst or self._whimsical(ticket.level):
            return False
        self._burst = self._sent
        again = abs(ticket.level - self._ceiling) <= SAME * ticket.level + 1
        self._patience = min(PATIENCE[1], self._patience * 2) if again else PATIENCE[0]
        self._ceiling, self._again_at = ticket.level, now + self._patience
        self._limit, self._doubling = max(1.0, SHRINK * min(self._limit, ticket.level)), False
        return True

    def _whimsical(self, level: int) -> bool:
        out = [ticket.level for ticket in self._out.values()]
        above = [served for other, served in self._latest if other >= level] + [True for other in out if other >= level]
        below = [served for other, served in self._latest if other < level] + [True for other in out if other < level]
        refused = above.count(False)
        if 3 * refused < 2 * len(above):
            return True
        usual = below.count(False) / len(below) if below else 0.0
        chances = (
            comb(len(above), k) * usual**k * (1 - usual) ** (len(above) - k) for k in range(refused, len(above) + 1)
        )
        return sum(chances) > DOUBT

    def lost(self, ticket: Ticket) -> None:
        """It came back in a way that says nothing about load: a time-out, a reset, a server's own error."""
        self._out.pop(ticket.number, None)
