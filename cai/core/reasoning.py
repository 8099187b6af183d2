"""Splits a model's output into the answer and the reasoning, however the reasoning is marked.

Think tags of all makes, channels, the forms that are left where a server removed the special tokens, and end-of-turn
tokens or role headers at the start or end of the text. All of it takes linear time.

Left out on purpose: structured reasoning fields (`reasoning_content`); with one there is nothing to split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_NAMES = (
    r"(?i:think(?:ing)?|(?:inner_|internal_)?thoughts?|reasoning|reflection|antthinking|scratchpad|inner_monologue"
    r"|seed:think)\s{0,4}>"
)
_HEADER = (
    r"<\|(?:end\|>\s{0,4}<\|start\|>\s{0,4}assistant\s{0,4}<\|channel|start\|>\s{0,4}assistant\s{0,4}<\|channel"
    r"|channel)"
    r"\|>\s{0,4}%s\b[^<\n]{0,80}(?:<\|constrain\|>[^<\n]{0,40})?(?:<\|message\|>)?"
)
"""The header of a harmony message, with the end of the message before it."""
_CHANNEL = "<|channel|>"
OPENING = (
    rf"<{_NAMES}|\[THINK\]|◁think▷|<\|(?i:begin_of_thought|start_thinking|inner_prefix|think(?:ing)?)\|>"
    r"|<unused94>(?:thought\n)?|<\|channel>(?:thought|analysis)?\n?|" + _HEADER % "(?:analysis|commentary)"
)
CLOSING = (
    rf"</{_NAMES}|\[/THINK\]|◁/think▷|<\|(?i:end_of_thought|end_thinking|inner_suffix|/think(?:ing)?)\|>"
    r"|<unused95>|<channel\|>|" + _HEADER % "final"
)
_TAG = re.compile(rf"(?P<opening>{OPENING})|(?P<closing>{CLOSING})|<\|end\|>")
_MAYBE = re.compile(r"<(?:\||/?(?i:think|thought|inner|inter|reas|refl|ant|scra|seed)|unused9|channel)|◁|\[/?THINK")
"""Where nothing of this is found there is no tag; to look for it first takes a tenth of the time."""
_HINT = re.compile(
    r"\s*+(?:assistant|analysis|commentary|here is my thought process|here are my reasoning steps)", re.IGNORECASE
)
_BARE = (
    (re.compile(r"\s*+(?:analysis|commentary)(?=[^a-z\s]|[ \t]*+\n)"), re.compile(r"assistant ?final")),
    (re.compile(r"\s*+Here is my thought process:"), re.compile("Here is my response:")),
    (re.compile(r"\s*+Here are my reasoning steps:"), re.compile(r"\[BEGIN FINAL RESPONSE\]")),
)
"""Reasoning marked by words alone: how the text starts, and what stands before the answer."""
_GLUED = re.compile(r"(?:(?<=[.!?)\]\n。！？])|\A)assistantfinal(?=\S)")
"""Channels without special tokens whose start is missing: no sentence is followed by these two words otherwise."""
_CUT = re.compile(r"\s*+analysis[A-Z]")
"""The same, cut before the answer."""

_ROLES = ("assistant", "model", "user", "system", "human")
_OPENERS = "<|im_start|> <|start|> <|start_header_id|> <start_of_turn> <|turn> <|start_of_role|>"
_ENDINGS = "</s> <s> <eos> <bos> <pad> <eod> <eot> <end_of_utterance> <end_of_turn> <turn|> [INST] [/INST] [EOS]"
_STARTS = tuple(_OPENERS.split())
_NAMED = (*_ENDINGS.split(), "[END FINAL RESPONSE]", *_STARTS)
_STRUCK = _NAMED[0]
"""Also the end of what is struck out in HTML."""


def _any(texts: tuple[str, ...], step: int = 1) -> str:
    return "|".join(re.escape(text[::step]) for text in texts)


_TOKEN = r"<[|｜][\w▁/:]{1,40}[|｜]>|\[\|\w{1,20}\|\]"
TURN_TOKEN = rf"{_TOKEN}|{_any(_NAMED)}"
"""A pattern of tokens that end or start a turn, or the whole text."""
_HEAD = re.compile(
    rf"(?:\s|(?:{_any(_STARTS)})(?:{_any(_ROLES)})\b|{TURN_TOKEN})*+(?:(?i:assistant)[ \t]?[:：]\s*+|assistant\n\s*+)?+"
    r"(?!(?:is|are|was|were|marks?|ends?|means|and|or|tokens?|stands|should|must|can|tells)\b)"  # it is mentioned
)
_TAIL = re.compile(
    rf"(?:\s|(?:{_any(_ROLES, -1)})?(?:{_any(_STARTS, -1)})|>[|｜][\w▁/:]{{1,40}}[|｜]<|\]\|\w{{1,20}}\|\["
    rf"|{_any(_NAMED, -1)})*+"
)
"""Matches the text read backwards, so that one pass takes all tokens off."""
_ENDS = (">", "]", *_ROLES)
_LEFT_TURN = re.compile(
    rf"{_TOKEN}|(?i:{_any(tuple(name for name in _NAMED if name != _NAMED[1]))})"
    rf"|</?text\b[^<>\n]{{0,4}} ?id ?=[^<>\n]{{0,40}}>?|‹[|/]\w"
)
_TRIGGER = re.compile(r"<[^\s=\d]|◁|‹|\[(?:[/|]|(?i:think|inst|eos|end|begin))")
"""How any mark begins; most texts with a bracket have none."""
_LEFT = re.compile(rf"{OPENING}|{CLOSING}|{_LEFT_TURN.pattern}")
_ANSWER = re.compile(r"\s*+<(answer|final_answer|response|output|solution|conclusion)>", re.IGNORECASE)
_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})[ \t]*+(.*)")
_TICKS = re.compile("`+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "«": "»"}


def split_thinking(text: str) -> tuple[str, str | None]:
    """`(answer, thinking)`; thinking is None when there was none, and a text without marks then comes back unchanged.

    A mark in code, in quotes, or unclosed in the middle of a line is text that mentions it. One pass over the marks, so
    that a megabyte of hostile marks takes linear time; a text without `<` and `[` takes a microsecond or two.
    """
    marked = ("<" in text or "[" in text or "◁" in text) and bool(_TRIGGER.search(text))
    if not marked and not _HINT.match(text) and "assistantfinal" not in text:
        return text, None
    answer, thinking = _split_words(text)
    if thinking is None and marked and _MAYBE.search(text):
        answer, thinking = _split_tags(text)
    answer = without_turn_tokens(answer)
    return (answer, None) if thinking is None else (_held(answer.strip()), thinking)


def without_turn_tokens(text: str) -> str:
    """`text` without end-of-turn tokens and role headers at its start and end; unchanged where there are none."""
    head = _HEAD.match(text)
    start = head.end() if head and head[0].strip() else 0
    if not text.rstrip().endswith(_ENDS):
        return text[start:]
    tail = _TAIL.match(text[: start - len(text) - 1 : -1])
    if not tail or not tail[0].strip():
        return text[start:]
    kept = text[start : len(text) - tail.end()]
    struck = "<s>" in kept and tail[0].lstrip().startswith(_STRUCK[::-1])
    return kept + _STRUCK if struck else kept


def leftover_mark(text: str, *, thoughts: bool = True) -> str | None:
    """The first mark that no answer has: of a turn, of a template's fence and, with `thoughts`, of reasoning.

    One in code or in quotes is text.
    """
    if ("<" not in text and "[" not in text and "◁" not in text and "‹" not in text) or not _TRIGGER.search(text):
        return None
    found = next(_unquoted(text, _LEFT if thoughts else _LEFT_TURN), None)
    return found[0].strip() if found else None


def _unquoted(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    found = [one for one in pattern.finditer(text) if one[0] != _STRUCK or _NAMED[1] not in text]
    inline, blocks = _code(text) if found and ("`" in text or "~~~" in text) else ([], [])
    in_code, in_block = _Spans(inline), _Spans(blocks)
    return (one for one in found if not (in_code.hold(one) or in_block.hold(one) or _quoted(text, one)))


def _split_words(text: str) -> tuple[str, str | None]:
    """Reasoning that words mark, as they are left of channels where a server removed the special tokens."""
    for opening, closing in _BARE:
        if (opened := opening.match(text)) and (closed := closing.search(text, opened.end())):
            return text[closed.end() :], text[opened.end() : closed.start()].strip()
    if "assistantfinal" in text and (glued := _GLUED.search(text)):
        return text[glued.end() :], text[: glued.start()].strip() or None
    return ("", text.strip().removeprefix("analysis")) if _CUT.match(text) else (text, None)


def _split_tags(text: str) -> tuple[str, str | None]:
    """The answer, and all reasoning between tags, by blank lines; None where there is none."""
    tags = list(_real_tags(text))
    last_closing = max((tag.start() for tag in tags if tag["closing"]), default=-1)
    answer: list[str] = []
    thinking: list[str] = []
    at, inside, seen, before = 0, "", False, 0
    for tag in tags:
        alone, before = _starts_line(text, before, tag.start()), tag.end()
        if tag["opening"] and inside and _CHANNEL in tag["opening"]:
            thinking.append(text[at : tag.start()])
            at = tag.end()
        elif tag["opening"] and not inside:
            # An unclosed tag in the middle of a line is text that mentions the tag.
            if alone or tag.start() < last_closing or tag["opening"].endswith("<|message|>"):
                answer.append(text[at : tag.start()])
                inside, at, seen = tag["opening"], tag.end(), True
        elif tag["closing"] or (not tag["opening"] and inside.startswith("<|")):
            (thinking if inside else answer).append(text[at : tag.start()])
            seen = seen or not tag["closing"].startswith("<|") or bool("".join(answer).strip())
            if not inside:  # the chat template wrote the opening tag, and all text so far was thinking
                thinking += answer
                answer = []
            inside, at = "", tag.end()
    (thinking if inside else answer).append(text[at:])
    return "".join(answer) if at else text, "\n\n".join(filter(None, map(str.strip, thinking))) if seen else None


def _real_tags(text: str) -> Iterator[re.Match[str]]:
    """The tags that no code and no quotes hold. In a block that reasoning began, the tag that ends it is real."""
    tags = list(_TAG.finditer(text))
    inline, blocks = _code(text) if tags and ("`" in text or "~~~" in text) else ([], [])
    in_code, in_block, inside = _Spans(inline), _Spans(blocks), False
    for tag in tags:
        if not (in_code.hold(tag) or _quoted(text, tag) or (in_block.hold(tag) and not inside)):
            inside = bool(tag["opening"]) or (inside and not tag["closing"])
            yield tag


def _starts_line(text: str, after: int, at: int) -> bool:
    """Whether only blanks stand before `at` in its line; a tag that ends at `after` is no blank."""
    line = text.rfind("\n", after, at)
    return (line >= 0 or after == 0) and not text[line + 1 : at].strip()


def _held(answer: str) -> str:
    """What the answer tag after the reasoning holds; the answer itself where there is none."""
    if found := _ANSWER.match(answer):
        return answer[found.end() :].partition(f"</{found[1]}>")[0].strip()
    opened = answer.find("<answer>") if answer.endswith("</answer>") else -1
    return answer[opened + 8 : -9].strip() if opened >= 0 else answer


def _quoted(text: str, found: re.Match[str]) -> bool:
    start, end = found.span()
    return start > 0 and _QUOTES.get(text[start - 1]) == text[end : end + 1]


class _Spans:
    """Sorted spans of a text, asked in ascending order."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self._spans, self._at = spans, 0

    def hold(self, found: re.Match[str]) -> bool:
        """Whether the match is in one of them."""
        while self._at < len(self._spans) and self._spans[self._at][1] < found.end():
            self._at += 1
        return self._at < len(self._spans) and self._spans[self._at][0] <= found.start()


def _code(text: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The spans of inline code, and those of closed code blocks."""
    inline: list[tuple[int, int]] = []
    blocks: list[tuple[int, int]] = []
    at, opened, mark = 0, 0, ""
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if mark:
            if fence and fence[1].startswith(mark) and not fence[2].strip():
                blocks.append((opened, at + len(line)))
                mark = ""
        elif fence and "`" not in fence[2]:
            opened, mark = at, fence[1]
        elif "`" in line:
            inline += ((at + start, at + end) for start, end in _inline(line))
        at += len(line)
    return inline, blocks


def _inline(line: str) -> Iterator[tuple[int, int]]:
    """Spans of inline code: from a run of backticks to the next run of the same length."""
    runs = [run.span() for run in _TICKS.finditer(line)]
    following: dict[int, int] = {}
    closers = [0] * len(runs)
    for number in range(len(runs) - 1, -1, -1):
        length = runs[number][1] - runs[number][0]
        closers[number] = following.get(length, 0)
        following[length] = number
    number = 0
    while number < len(runs):
        if closer := closers[number]:
            yield runs[number][0], runs[closer][1]
        number = max(number, closer) + 1
