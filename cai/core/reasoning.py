"""Splits a reasoning model's answer into what it says and what it thought.

Left out on purpose: structured reasoning fields (`reasoning_content`); a backend that gets one has nothing to split.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"(?P<alone>^[ \t]*)?<(?P<closing>/?)think(?:ing)?>", re.IGNORECASE | re.MULTILINE)


def split_thinking(text: str) -> tuple[str, str | None]:
    """`(answer, thinking)`; thinking is None when there was none, and the text then comes back unchanged.

    One pass over the tags, so that a megabyte of hostile tags costs no more than a megabyte of prose.
    """
    tags = list(_TAG.finditer(text))
    last_closing = max((tag.start() for tag in tags if tag["closing"]), default=-1)
    said: list[str] = []
    thought: list[str] = []
    at, inside = 0, False
    for tag in tags:
        # An unclosed tag in the middle of a line is prose that mentions it.
        opens = not tag["closing"] and (tag["alone"] is not None or tag.start() < last_closing)
        if tag["closing"]:
            # A closing tag alone: the chat template wrote the opening one, and all so far was thinking.
            thought += [text[at : tag.start()]] if inside else [*said, text[at : tag.start()]]
            said, inside, at = said if inside else [], False, tag.end()
        elif opens and not inside:
            said.append(text[at : tag.start()])
            inside, at = True, tag.end()
    if at == 0:
        return text, None
    (thought if inside else said).append(text[at:])
    return "".join(said).strip(), "\n\n".join(filter(None, map(str.strip, thought)))
