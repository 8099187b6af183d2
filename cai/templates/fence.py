"""Takes an answer out of the fence that its question showed: models return what they write in the form they were shown.

A mark is a line of the fence in the answer: whole, broken, under another name, or with the id of no fence at all. What
stands inside the last fence is the answer, what stands outside it is not. Repeated questions are no answers. Where that
leaves two readings, `inside` is empty: the caller turns the answer away and says why.

Left out on purpose: marks of templates that show no fence. There, `<text id="title">` is a drawing's label.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cai.core.types import Action, Message
from cai.templates.sandbox import FILTERS, INVISIBLE

Part = Literal["open", "close", "stray"]


@dataclass(frozen=True, slots=True)
class Cut:
    """An answer in which there are marks of a fence."""

    inside: str
    """What stands in the last fence; empty where that is not certain."""
    outside: str
    """What stands in no fence: the only place where a verdict is read."""
    whole: str
    """All of it, without the marks."""
    action: Action
    """`repair` where `inside` is exact; `tag` where a look-alike stays that the question had too; `drop` otherwise."""
    why: str


@dataclass(frozen=True, slots=True)
class _Mark:
    start: int
    end: int
    part: Part
    own: bool = False
    """Whether it carries the call's id."""
    name: str = ""


def cut_fence(text: str, nonce: str, messages: Sequence[Message], answer: str = "") -> Cut | None:
    """The parts of `text`, written in reply to `messages`; None where they show no fence or it has no mark of one.

    `answer` is the fenced text that may be repeated: the one that was to be revised.
    """
    if "<" not in text and "＜" not in text and nonce not in text:  # most texts
        return None
    if "text" not in (lowered := text.lower()) and nonce not in lowered:
        return None
    if not any(nonce in message.content for message in messages):
        return None
    look_alike = any(_LOOK_ALIKE.search(message.content) for message in messages)
    marks = _marks(text, nonce, any_id=not look_alike)
    if not marks:
        action: Action = "tag" if look_alike else "drop"
        why = "a look-alike of the fence"
        return Cut(text, text, text, action, why) if _LEFT_OVER.search(text) else None
    pieces = _pieces(text, marks)
    inside, why = _inside(pieces, _shown(messages, nonce), _words(answer))
    outside = "\n".join(piece.said for piece in pieces if piece.free and piece.said)
    if inside and outside and not any(mark.own for mark in marks):
        inside, why = "", "a fence with another id, and text outside it"
    action = "repair" if inside else "drop"
    if inside and (_LEFT_OVER.search(inside) or nonce in inside):
        action, why = "tag" if look_alike and nonce not in inside else "drop", "a look-alike of the fence"
        inside = inside if any(mark.own for mark in marks) else text
    why += f"; outside it: {outside[:80]!r}" if outside else ""
    return Cut(inside if action != "drop" else "", outside, _whole(pieces), action, why.replace(nonce, "…"))


def unfenced(text: str, nonce: str) -> str:
    """`text` without marks of the call's fence, for what is kept and never used as an answer."""
    return _whole(_pieces(text, _marks(text, nonce))) if nonce in text else text


# --- Marks ------------------------------------------------------------------------------------------------------------

_SPACE = rf"[\s{INVISIBLE}]{{0,8}}"
_DECORATION = "*_`#> \t"
_ANGLES = ("<", "＜", "‹", "«", "&lt;")
_BEFORE = re.compile(
    rf"[*_`]{{0,3}}(?P<bracket>&lt;|[<＜‹«\[({{]){_SPACE}(?P<slash>[/／\\]?){_SPACE}"
    r"(?:(?![iI][dD]\b)(?P<name>[^\W\d_]{1,20}))?[^\n<>＜＞‹›«»\[\](){}]{0,12}\Z"
)
"""What stands before the id in a mark."""
_BARE = re.compile(r"(?:\btext[^\S\n]{1,3})?(?:\bid[^\S\n]?[=:]?[^\S\n]?)?[\"'“]?\Z", re.IGNORECASE)
"""What stands before it where there is no bracket."""
_AFTER = re.compile(
    r"(?:\\?[\"'”’“»]|&quot;)?(?:[^\S\n]{1,4}[\w-]{1,20}=[\"'][^\"'<>\n]{0,40}[\"']){0,3}[^\S\n]{0,4}[/\\]?"
    r"[^\S\n]{0,4}(?:>|＞|›|»|&gt;|[\])}])?[*_`]{0,3}"
)
"""What stands after it."""
_OTHER_OPEN = re.compile(
    rf"[<＜]{_SPACE}text[\s{INVISIBLE}]{{1,8}}id{_SPACE}=?{_SPACE}[\"'“]?"
    r"(?:(?P<digits>[0-9a-f]{5,16})\b|[^\s\"'”<>]{1,40})[\"'”]?[^\S\n]{0,4}/?[>＞]?",
    re.IGNORECASE,
)
_OTHER_CLOSE = re.compile(
    rf"[<＜]{_SPACE}[/／\\]{_SPACE}text[\s{INVISIBLE}]{{1,8}}i(?:[^\w<>\n]|d)[^<>\n]{{0,60}}[>＞]?", re.IGNORECASE
)
"""Lines of a fence with another id."""
_END = re.compile(
    r"[<＜][^\S\n]{0,8}[/／\\][^\S\n]{0,8}(?P<name>[^\W\d_]{0,20})(?:[^\S\n]{1,8}id?=?)?[^\S\n]{0,4}>?"
    r"(?=[^\S\n]{0,8}(?:\n|\Z))"
)
"""The end of a fence without an id, the last thing on its line."""
_ELEMENT = re.compile(r"<text(?=[\s>])(?!\s{1,8}id\b)", re.IGNORECASE)
"""An element of a drawing, whose end is no mark."""
_LEFT_OVER = re.compile(rf"[<＜]{_SPACE}[/／\\]?{_SPACE}text[\s{INVISIBLE}]{{1,8}}id\b", re.IGNORECASE)
_LOOK_ALIKE = re.compile(rf"‹{_SPACE}[/／\\]?{_SPACE}text\b", re.IGNORECASE)
"""What the filter makes of a look-alike in a text that a question shows."""
_WINDOW = 64
"""Characters around a mark that are looked at."""


def _marks(text: str, nonce: str, *, any_id: bool = False) -> list[_Mark]:
    """All marks in `text`, in order, none overlapping another; with `any_id` it may begin with one of any other id."""
    found = [_own(text, at.start(), at.end()) for at in re.finditer(re.escape(nonce), text, re.IGNORECASE)]
    begins = len(text) - len(text.lstrip()) if any_id else -1
    others = (at for at in _OTHER_OPEN.finditer(text) if at["digits"] or (at.start() == begins and at[0][-1] in ">＞"))
    found += [_Mark(at.start(), at.end(), "open") for at in others]
    found += [_Mark(at.start(), at.end(), "close") for at in _OTHER_CLOSE.finditer(text)]
    names = {mark.name.casefold() for mark in found if mark.name}
    found += _ends(text, names if _ELEMENT.search(text) else names | {"text"}, opened=bool(found))
    kept = list[_Mark]()
    for mark in sorted(found, key=lambda mark: (mark.start, not mark.own)):
        if not kept or mark.start >= kept[-1].end:
            kept.append(mark)
        elif mark.own:
            first = kept[-1]
            kept[-1] = replace(first if first.own else mark, start=first.start, end=max(first.end, mark.end))
    if len({mark.part for mark in kept} - {"stray"}) == 1:  # only opened, or only closed
        kept = [_unless_in_sentence(text, mark) for mark in kept]
    return kept


def _own(text: str, start: int, end: int) -> _Mark:
    """The mark around the call's id, which stands from `start` to `end`."""
    first = _line_start(text, start)
    before = _BEFORE.search(text[first:start])
    bare = before or _BARE.search(text[first:start])
    after = _AFTER.match(text, end)
    begin, finish = first + (bare.start() if bare else start - first), after.end() if after else end
    if (before and before["bracket"] in _ANGLES) or _alone(text, begin, finish):
        part: Part = "close" if before and before["slash"] else "open"
        return _Mark(begin, finish, part, True, (before and before["name"]) or "")
    return _Mark(begin, finish, "stray", True)


def _ends(text: str, names: set[str], *, opened: bool) -> Iterator[_Mark]:
    """Ends without an id: alone on a line, or the last thing in the text, where they may be cut short."""
    last = len(text.rstrip())
    for end in _END.finditer(text):
        name, at_end = end["name"].casefold(), end.end() >= last
        cut_short = opened and at_end and any(one.startswith(name) for one in names)
        if (name in names or cut_short) and (at_end or _alone(text, end.start(), end.end())):
            yield _Mark(end.start(), end.end(), "close")
    if opened and last and text[last - 1] == "<" and _alone(text, last - 1, last):
        yield _Mark(last - 1, last, "close")


def _line_start(text: str, at: int) -> int:
    """Where the line of `at` begins, or the window before it."""
    least = max(0, at - _WINDOW)
    return max(least, text.rfind("\n", least, at) + 1)


def _around(text: str, start: int, end: int) -> tuple[str, str]:
    """What else stands on the line, before and after."""
    after = text[end : end + _WINDOW].partition("\n")[0]
    return text[_line_start(text, start) : start].strip(_DECORATION), after.strip(_DECORATION)


def _alone(text: str, start: int, end: int) -> bool:
    return _around(text, start, end) == ("", "")


def _unless_in_sentence(text: str, mark: _Mark) -> _Mark:
    """The mark; a stray where it is named in a sentence, which only a mark without a partner can be."""
    before, after = _around(text, mark.start, mark.end)
    named = bool(before) and (not before.endswith((":", "：")) if mark.part == "open" else bool(after))
    return replace(mark, part="stray") if named else mark


# --- Parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """The text between two marks."""

    text: str
    before: Part | None
    after: Part | None
    depth: int
    """Fences that are open where it begins."""
    group: int
    """Equal for the pieces of one outermost fence."""
    stray: bool

    @property
    def said(self) -> str:
        return self.text.strip()

    @property
    def fenced(self) -> bool:
        return self.before == "open" or self.after == "close"

    @property
    def free(self) -> bool:
        return not self.fenced and not self.depth


def _pieces(text: str, marks: Sequence[_Mark]) -> list[_Piece]:
    """The texts between the marks; strays are taken out of them."""
    pieces, parts = list[_Piece](), list[str]()
    at, depth, group, stray = 0, 0, 0, False
    before: Part | None = None
    for mark in marks:
        parts.append(text[at : mark.start])
        at = mark.end
        if mark.part == "stray":
            stray = True
            continue
        pieces.append(_Piece("".join(parts), before, mark.part, depth, group, stray))
        parts, before, stray = [], mark.part, False
        depth = depth + 1 if mark.part == "open" else max(0, depth - 1)
        group += not depth
    return [*pieces, _Piece("".join([*parts, text[at:]]), before, None, depth, group, stray)]


def _inside(pieces: Sequence[_Piece], shown: Container[str], answer: str) -> tuple[str, str]:
    """What stands in the last fence that repeats no question, empty where that is not certain; and what was found."""
    told = [piece for piece in pieces if piece.said]
    fences = [piece for piece in told if not piece.free]
    written = [piece for piece in fences if (words := _words(piece.said)) == answer or words not in shown]
    if not fences:
        return "", "nothing in the fence"
    if not written:
        if told[-1].free and told[-1] is not told[0] and not told[-1].stray:
            return told[-1].said, "the question's fences repeated before the answer"
        return "", "nothing in the fence but what was shown"
    last = written[-1]
    if any(piece.group == last.group for piece in written[:-1]):
        return "", "text in a fence and in another inside it"
    if last.stray or not last.fenced:
        return "", "the fence's id within the text"
    if told[-1] is not last and told[-1].free and _words(last.said) == answer:
        return "", "the earlier answer in the fence, and text after it"
    return last.said, "cut out of its fence"


def _shown(messages: Sequence[Message], nonce: str) -> set[str]:
    """The texts that stand in the fences of a question."""
    begin, end = FILTERS["fence"]("\0", nonce).split("\0")
    return {_words(part.partition(end)[0]) for message in messages for part in message.content.split(begin)[1:]}


def _words(text: str) -> str:
    return " ".join(text.split())


def _whole(pieces: Sequence[_Piece]) -> str:
    whole = list[str]()
    for piece in pieces:
        apart = not whole or not piece.text or whole[-1][-1:].isspace() or piece.text[0].isspace()
        whole += [piece.text] if apart else [" ", piece.text]
    return re.sub(r"\n{3,}", "\n\n", "".join(whole)).strip()
