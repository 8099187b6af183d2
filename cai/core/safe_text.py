"""Make untrusted text safe to display: nothing in it can control a terminal, reorder a line or stay invisible.

Line breaks and tabs stay; every other control, escape, direction mark and invisible character is shown as a symbol.

Left out on purpose: look-alike letters. They mislead a reader, but the screen shows what is in the text.
"""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "\r\n|"
    "(?!(?<=[^\x00-\x7f\u200c\u200d])[\u200c\u200d](?=[^\x00-\x7f\u200c\u200d]))"  # joiners: Persian words, emoji
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed; ESC opens ANSI and OSC 8
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # invisible letters and marks
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, line separators, direction marks and overrides
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\ud800-\udfff"  # half of a surrogate pair: cannot be written as UTF-8
    "\U000e0000-\U000e0fff"  # tags and variation selectors that can carry a whole hidden message
    "]"
)


def safe_text(text: str) -> str:
    """`text` with every invisible and every control character made visible: `␛[31m`, `⟨U+202E⟩`."""
    if text.isascii() and text.isprintable():  # most short texts; this is faster than a pattern that finds nothing
        return text
    return _HIDDEN.sub(_symbol, text)


def _symbol(found: re.Match[str]) -> str:
    character = found.group()
    if character == "\r\n":
        return "\n"
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
