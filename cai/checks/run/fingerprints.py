"""One pair and the identities of its texts, worked out once for all checks.

Left out on purpose: anything that only one check needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from cai.core.seeds import digest
from cai.data.pairs import Preference


@dataclass(frozen=True, slots=True)
class PairFingerprint:
    """A pair, and its texts as 64 bits each; case and spacing do not count."""

    pair: Preference
    prompt: int
    chosen: int
    rejected: int

    @property
    def row(self) -> int:
        """The identity of the whole row."""
        return identity(self.prompt, self.chosen, self.rejected)

    @property
    def turned(self) -> int:
        """The identity of a row that says the opposite."""
        return identity(self.prompt, self.rejected, self.chosen)


def fingerprinted(pair: Preference) -> PairFingerprint:
    """What there is to know about a pair."""
    prompt = [(message.role, _plain(message.content)) for message in pair.prompt]
    return PairFingerprint(pair, identity(prompt), identity(_plain(pair.chosen)), identity(_plain(pair.rejected)))


def identity(*parts: object) -> int:
    """64 bits of a digest: enough to tell a million texts apart, and small enough to hold."""
    return int(digest(*parts)[:16], 16)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
