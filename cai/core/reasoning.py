"""Splits a reasoning model's output into the answer and the reasoning.

Left out on purpose: structured reasoning fields (`reasoning_content`); with one there is nothing to split.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"(?P<alone>^[ \t]*)?<(?P<closing>/?)think(?:ing)?>", re.IGNORECASE | re.MULTILINE)


def split_thinking(text: str) -> tuple[str, str | None]:
    """`(answer, thinking)`; thinking is None when there was none, and the text then comes back unchanged.

    One pass over the tags, so that a megabyte of hostile tags takes linear time.
    """
    tags = list(_TAG.finditer(text))
    last_closing = max((tag.start() for tag in tags if tag["closing"]), default=-1)
    answer: list[str] = []
    thinking: list[str] = []
    at, inside = 0, False
    for tag in tags:
        # An unclosed tag in the middle of a line is text that mentions the tag.
        opens = not tag["closing"] and (tag["alone"] is not None or tag.start() < last_closing)
        if tag["closing"]:
            # A closing tag alone: the chat template wrote the opening one, and all text so far was thinking.
            thinking += [text[at : tag.start()]] if inside else [*answer, text[at : tag.start()]]
            answer, inside, at = answer if inside else [], False, tag.end()
        elif opens and not inside:
            answer.append(text[at : tag.start()])
            inside, at = True, tag.end()
    if at == 0:
        return text, None
    (thinking if inside else answer).append(text[at:])
    return "".join(answer).strip(), "\n\n".join(filter(None, map(str.strip, thinking)))
