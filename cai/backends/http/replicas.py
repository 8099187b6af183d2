"""The replicas of an endpoint: servers of the same model, each with connections and a throttle of its own.

All requests of a conversation go to the same replica, so that it finds the conversation's prefix in its KV cache. Which
one that is follows from the conversation's digest by rendezvous hashing: a replica more or less moves only its share.
One that cannot be reached is left out and tried again later, by one request at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cai.backends.http.connection import Connection
from cai.backends.http.throttle import Throttle
from cai.core.seeds import digest

log = logging.getLogger("cai")

AGAIN = 10.0
"""Seconds for which a replica that cannot be reached is left out."""


@dataclass(slots=True)
class Replica:
    """One server, and since when it is left out."""

    place: str
    connection: Connection
    throttle: Throttle
    out_until: float = 0.0
    """0: it is in use."""


class Replicas:
    """Chooses the replica for each request."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.all = tuple(replicas)
        self.only = self.all[0] if len(self.all) == 1 else None

    @property
    def none_left(self) -> bool:
        """Whether all are left out."""
        return all(one.out_until for one in self.all)

    def choose(self, conversation: str) -> Replica:
        """The replica of a conversation: the first in its own order that is in use, or is due to be tried again."""
        order = sorted(self.all, key=lambda one: digest("replica", one.place, conversation))
        now = time.monotonic()
        for one in order:
            if one.out_until and one.out_until <= now:
                one.out_until = now + AGAIN  # for this request alone; the others wait for what it finds
                return one
            if not one.out_until:
                return one
        return order[0]

    def reached(self, one: Replica) -> None:
        """It answered."""
        if one.out_until:
            one.out_until = 0.0
            log.warning("%s: can be reached again", one.place)

    def unreachable(self, one: Replica) -> None:
        """It cannot be reached."""
        if self.only:
            return
        if not one.out_until:
            log.warning("%s: cannot be reached; its requests go to the other replicas", one.place)
        one.out_until = time.monotonic() + AGAIN
