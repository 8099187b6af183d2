"""Language detection without a model, accurate enough to notice a switch from one language to another.

Script first (Latin, Cyrillic, Han ...), and between languages in Latin script by their commonest words.

Left out on purpose: short texts and closely related languages. Those give `None`, which never counts as a switch.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_WORDS = {
    "en": "the and of to is that it you for with are this have not be can",
    "es": "el los las que una por con para del está son más pero como su muy",
    "fr": "le les des une est que dans pour pas vous avec sur sont il mais ce",
    "de": "der die und das ist nicht ein eine mit sich auf für auch es den sie",
    "it": "il che di una per non con sono della gli più anche si nel questo come",
    "pt": "os que uma não para com por mais como dos foi você está são seu ao",
    "nl": "het een van en dat niet zijn met voor op ook maar aan wordt bij je",
}
_CODES: dict[str, list[str]] = {}
"""A word -> the languages it is common in."""
for _code, _words in _WORDS.items():
    for _each in _words.split():
        _CODES.setdefault(_each, []).append(_code)
_WORD = re.compile(r"[^\W\d_]+")
_LOWER = bytes(code | 32 if chr(code).isalpha() else 32 for code in range(128)).ljust(256)
"""Each ASCII character as its lower-case letter, or a space."""
ENOUGH = 4
"""Common words of a language needed to recognise it."""
SAMPLE = 2000
"""Characters examined."""


def language(text: str) -> str | None:
    """A language code for Latin script, else the script's name in lower case, or None where it is uncertain."""
    text = text[:SAMPLE]
    if text.isascii():
        return _latin(text)
    letters = [character for character in text if character.isalpha()]
    if len(letters) < 20:
        return None
    script, count = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters).most_common(1)[0]
    if count < 0.6 * len(letters):
        return None
    return _latin(text) if script == "LATIN" else script.lower()


def letters(text: str) -> list[str]:
    """The runs of letters in `text`, in lower case."""
    if text.isascii():  # the same, five times as fast
        return text.encode().translate(_LOWER).decode().split()
    return _WORD.findall(text.lower())


def _latin(text: str) -> str | None:
    common = list(filter(_CODES.__contains__, letters(text)))
    if len(common) < ENOUGH:
        return None
    votes = dict.fromkeys(_WORDS, 0)
    for word, count in Counter(common).items():
        for code in _CODES[word]:
            votes[code] += count
    second, most = sorted(votes.values())[-2:]
    return max(votes, key=votes.__getitem__) if most >= ENOUGH and most >= 2 * second else None
