"""Gate: the text says the same again and again."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from operator import eq

from cai.core.plugin_types import Gate, GateInput

SEEN = 20_000
"""Characters of an answer that are looked at."""

_SIGNS = r"([^\s\w=\-_.*#~|+/\\])(?:\s?\1){9,}"
_SIGN_RUN = re.compile(_SIGNS)
_RUN = re.compile(_SIGNS + r"|(\S{1,40})(?:\s\2){7,}")


def repetition(seen: GateInput) -> str | None:
    """What is repeated, and how often."""
    text = seen.after[-SEEN:]
    words = text.split()
    # without six equal words in a row no word runs on, and only signs are looked for: a tenth of the time
    six = b"\1" * 5 in bytes(map(eq, words, islice(words, 1, None)))
    if (six or _signs(text)) and (found := (_RUN if six else _SIGN_RUN).search(text)):
        return f"{found[0][:40]!r} over and over"
    most = 0.4 * (len(words) - 3)
    if len(words) < 40 or len(words) - len(set(words)) <= most:  # four words in a row repeat no oftener than one
        return None
    grams = Counter(zip(*(islice(words, start, None) for start in range(4)), strict=False))
    if sum(count - 1 for count in grams.values()) <= most:
        return None
    gram, count = grams.most_common(1)[0]
    return f"{' '.join(gram)!r} {count} times"


_NO_SIGNS = bytes(code for code in range(128) if chr(code).isalnum() or chr(code) in " \t\n\v\f\r=-_.*#~|+/\\")


def _signs(text: str) -> bool:
    """Whether `text` has as many signs as a run of them takes."""
    return not text.isascii() or len(text.encode().translate(None, _NO_SIGNS)) >= 10


GATE = Gate(
    look=repetition,
    about="a word, a sign or four words are repeated",
    on=("draft", "revision"),
    default="drop",
    order=50,
)
