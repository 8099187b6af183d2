"""Which of many texts are nearly the same, from 240 bytes of each.

MinHash signatures by datasketch, of which 16 bits a permutation are kept (Li and Koenig, 2010). Rows of equal bands are
found by sorting an array: datasketch's own index holds 5 kB a text in dictionaries, 500 MB for 100,000 texts.

Left out on purpose: every near copy of a text. One is enough to say that a row has been there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BANDS, WIDTH = 20, 6
"""At 0.8 alike two texts meet in some band with probability 0.998, at 0.5 with 0.27, and are then compared."""
LONGEST = 10_000
"""Words of a text that count."""


class Signatures:
    """The signatures of texts in the order in which they came."""

    def __init__(self) -> None:
        from datasketch import MinHash

        self._hash = MinHash
        self._start = MinHash(num_perm=BANDS * WIDTH, hashfunc=crc32)
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // (2 * BANDS * WIDTH)

    def add(self, words: Sequence[str]) -> None:
        """Add a text by its words: its set is that of its words and of its pairs of neighbouring words."""
        words = words[:LONGEST] or [f"text {len(self)}"]  # one without words is like no other
        pairs = {f"{one} {other}".encode() for one, other in pairwise(words)}
        made = self._start.copy()
        made.update_batch(pairs.union(word.encode() for word in words))
        self._bytes += made.hashvalues.astype("<u2").tobytes()

    def array(self) -> NDArray[np.uint16]:
        """One row a text."""
        import numpy as np

        return np.frombuffer(bytes(self._bytes), dtype="<u2").reshape(-1, BANDS * WIDTH)


def nearest(texts_NP: NDArray[np.uint16], alike: float) -> NDArray[np.int64]:
    """For each text an earlier one that is `alike` (estimated Jaccard similarity), or -1."""
    import numpy as np

    best_N, found_N = np.full(len(texts_NP), alike - 1e-9), np.full(len(texts_NP), -1, dtype=np.int64)
    odd_W = np.random.default_rng(0).integers(1, 2**63, WIDTH, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for start in range(0, BANDS * WIDTH, WIDTH):
        keys_N = (texts_NP[:, start : start + WIDTH].astype(np.uint64) * odd_W).sum(axis=1)
        first_N = _first_of_equals(keys_N)
        meets = np.flatnonzero((first_N != np.arange(len(first_N))) & (first_N != found_N))
        alike_M = (texts_NP[meets] == texts_NP[first_N[meets]]).mean(axis=1)
        better = alike_M > best_N[meets]
        best_N[meets[better]], found_N[meets[better]] = alike_M[better], first_N[meets[better]]
    return found_N


def _first_of_equals(keys_N: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each key the place where it came first."""
    import numpy as np

    _, first, group_N = np.unique(keys_N, return_index=True, return_inverse=True)
    return first[group_N].astype(np.int64)
