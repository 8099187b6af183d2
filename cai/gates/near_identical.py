"""Gate: chosen and rejected are nearly the same."""

from __future__ import annotations

from rapidfuzz.distance import Indel

from cai.core.plugin_types import Gate, GateInput

SEEN = 20_000
"""Words of an answer that are compared."""
NEAR = 0.97
"""Word similarity (Indel, 0 to 1) from which two answers count as the same."""


def near_identical(seen: GateInput) -> str | None:
    """How similar chosen (`after`) and rejected (`before`) are."""
    a, b = seen.before.split()[:SEEN], seen.after.split()[:SEEN]
    both = len(a) + len(b)
    if not both or 2 * min(len(a), len(b)) / both < NEAR:  # the most that similarity can be at these lengths
        return None
    alike = Indel.normalized_similarity(a, b, score_cutoff=NEAR)
    return f"{alike:.0%} of the words" if alike >= NEAR else None


GATE = Gate(
    look=near_identical, about="chosen and rejected are nearly the same", on=("pair",), default="drop", order=10
)
