"""What a template may do, and how it prints untrusted text: the Jinja sandbox, the fence and the escaping.

Text written by a model or taken from a file arrives as `Untrusted`. A template cannot print it until it has passed one
of three filters: `fence` puts it between delimiters that contain an unguessable nonce, `turn` makes it the content of
its own chat turn, `plain` breaks the labels of plain-text worked examples. All three break chat control tokens.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from jinja2 import StrictUndefined, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cai.core.errors import Mistake
from cai.core.types import Message, Role

MAX_NODES = 2000
MAX_LOOPS = 3
MAX_NUMBER = 10_000
PLACEHOLDER_MARK = f"\0{secrets.token_hex(8)}\0"
"""Before and after a placeholder's name in rendered text; no text can contain it."""


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Text that a model or a user wrote. A template that prints it without a filter is refused."""

    text: str = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        raise ValueError("prints text that a model or a user wrote; put it through fence, turn or plain")


@dataclass(frozen=True, slots=True)
class Turn:
    """A Message as a template sees it."""

    role: Role
    content: Untrusted

    __str__ = Untrusted.__str__


@dataclass(frozen=True, slots=True, eq=False)
class Placeholder:
    """Takes the place of an untrusted text while a template is compiled."""

    name: str
    nonempty: bool

    def __bool__(self) -> bool:
        return self.nonempty

    def __eq__(self, other: object) -> bool:
        raise TypeError("compares a text that is not known yet")

    def __repr__(self) -> str:
        raise ValueError("prints a text without a filter")

    def filtered(self, filter: str) -> str:
        """What a filter prints for it: the filter and the name, between marks."""
        return f"{PLACEHOLDER_MARK}{filter} {self.name}{PLACEHOLDER_MARK}"


Filter = Callable[[Untrusted | str, str], str]
"""A text and the call's nonce -> the text to print."""


def turns(messages: Iterable[Message]) -> tuple[Turn, ...]:
    """A conversation as templates see it."""
    return tuple(Turn(message.role, Untrusted(message.content)) for message in messages)


# --- Sandbox ----------------------------------------------------------------------------------------------------------


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox; untrusted text has no attributes in it."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not isinstance(obj, (Untrusted, Placeholder)) and super().is_safe_attribute(obj, attr, value)


def sandbox() -> ImmutableSandboxedEnvironment:
    """A Jinja environment without globals, with the three filters above and eight harmless ones."""
    environment = _Sandbox(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    for name in set(environment.filters) - {"trim", "indent", "length", "first", "last", "join", "upper", "lower"}:
        del environment.filters[name]  # such as `center(10**9)`
    environment.globals.clear()  # `range`, `lipsum`, `cycler`
    filters = {name: _jinja_filter(name, function) for name, function in FILTERS.items()}
    environment.filters.update(filters | {"fence": _jinja_fence})
    return environment


def check_size(tree: nodes.Template, where: str) -> None:
    """Raises Mistake for a template that could take unbounded time or memory."""
    # the sandbox does not stop 'a' * 10**9 or nested loops; a template that asks a question needs neither
    everything = list(tree.find_all(nodes.Node))
    if len(everything) > MAX_NODES:
        raise Mistake(where, f"is larger than {MAX_NODES} nodes", "simplify it")
    for loop in tree.find_all(nodes.For):
        if sum(1 for _ in loop.find_all(nodes.For)) >= MAX_LOOPS:
            raise Mistake(f"{where}:{loop.lineno}", f"nests {MAX_LOOPS} or more loops", "simplify it")
    for node in everything:
        if isinstance(node, nodes.Mul | nodes.Pow):
            raise Mistake(f"{where}:{node.lineno}", "multiplies, which a template need not", "write the text out")
        number = node.value if isinstance(node, nodes.Const) else 0
        if isinstance(number, int | float) and abs(number) > MAX_NUMBER:
            raise Mistake(f"{where}:{node.lineno}", f"has a number above {MAX_NUMBER}", "simplify it")


def _jinja_filter(name: str, function: Filter) -> Callable[[Untrusted | str | Placeholder], str]:
    """`function` as Jinja calls it: without a nonce, and also for a placeholder."""
    return lambda value: value.filtered(name) if type(value) is Placeholder else function(cast(str, value), "")


@pass_context
def _jinja_fence(context: Context, value: Untrusted | str | Placeholder) -> str:
    return value.filtered("fence") if type(value) is Placeholder else _fence(cast(str, value), context.parent["nonce"])


# --- Escaping ---------------------------------------------------------------------------------------------------------

# Foreign text meets every pattern below, so each takes linear time: repetitions are bounded or possessive (`*+`), and
# two that follow each other share no character.
_ANGLE_NAMES = (
    r"s", r"bos", r"eo[a-z]", r"sop", r"pad", r"unk", r"sep", r"cls", r"BOS", r"EOS", r"PAD", r"UNK",
    r"[A-Z]{1,10}_TOKEN", r"think", r"tool_call", r"tool_response", r"(?:start|end|begin)_?of_?\w{1,20}",
    r"extra_id_\d{1,5}", r"unused_?\d{1,5}", r"reserved_\w{1,20}", r"fim_\w{1,10}", r"(?:seed|minimax):\w{1,30}",
)  # fmt: skip
"""Control tokens written `<name>` or `</name>`, by the families of models that have them."""
_SQUARE_NAMES = (
    "INST", "SYSTEM_PROMPT", "AVAILABLE_TOOLS", "TOOL_CALLS", "TOOL_RESULTS", "TOOL_CONTENT", "CALL_ID", "ARGS",
    "THINK", "MODEL_SETTINGS", "gMASK",
)  # fmt: skip
"""Control tokens written `[NAME]` or `[/NAME]`."""
_CONTROL = re.compile(
    r"<(?=[^\s<>]{1,40}+>|[|｜]|<)"  # most of what begins with `<` is not even this
    r"(?=[|｜](?:[^|｜<>\n]{1,60}+[|｜]|[\w/\"]{1,40}+)>|[\w/\"]{1,40}+[|｜]>"
    rf"|/?+(?:{'|'.join(_ANGLE_NAMES)})>|</?SYS>>)|\[(?=/?+(?:{'|'.join(_SQUARE_NAMES)})\])"
    r"|◁(?=/?\w{1,20}▷)"
)
_BROKEN = {"<": "‹", "＜": "‹", "[": "⟦", "◁": "‹"}
"""What stands in place of the first character of a control token or of a look-alike of the fence."""
INVISIBLE = r"\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff"
"""Characters that are not shown, as part of a character class."""
_TEXT = "".join(rf"[{INVISIBLE}]*+{letter}" for letter in ("[tｔ]", "[eｅ]", "[xｘ]", "[tｔ]"))
_FENCE = re.compile(rf"[<＜](?=[\s{INVISIBLE}]*+[/／\\]?+[\s{INVISIBLE}]*+{_TEXT}\b)", re.IGNORECASE)
"""The beginning of what a reader could take for a line of the fence."""
_FENCE_ASCII = re.compile(r"<(?=\s*+[/\\]?+\s*+text\b)", re.IGNORECASE)
"""The same in a text of ASCII alone, in a third of the time."""
_LINE_BREAK = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
"""What ends a line for a reader, beside the line feed."""
_BLANK = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]"
"""White space and invisible characters."""
_INDENT = r"(?:[^\S\n]|[\u00ad\u200b-\u200f\u2060-\u2064\ufeff])*+"
_LABEL = re.compile(
    rf"^({_INDENT})(question|(?:better{_BLANK}++)?answer(?:{_BLANK}++[ab])?|reply|critique{_BLANK}*+request|critique"
    rf"|revision{_BLANK}*+request|revision|verdict|rule|check|comparison|score|human|assistant|user)({_BLANK}*+):",
    re.IGNORECASE | re.MULTILINE,
)
_EMPTY_LINES = re.compile(r"\n\s*\n+")


def _fence(value: Untrusted | str, nonce: str) -> str:
    """Between `<text id=...>` lines that contain the call's nonce; look-alikes inside are broken visibly."""
    inside = _turn(value)
    if "<" in inside or "＜" in inside:
        inside = (_FENCE_ASCII if inside.isascii() else _FENCE).sub("‹", inside)
    return f'<text id="{nonce}">\n{inside}\n</text id="{nonce}">'


def _turn(value: Untrusted | str, nonce: str = "") -> str:
    """The text with chat control tokens broken visibly: `<|im_end|>` becomes `‹|im_end|>`."""
    text = value if isinstance(value, str) else value.text
    # most texts have none; `in` is faster than a pattern that finds nothing
    if "<" not in text and "[" not in text and "◁" not in text:
        return text
    return _CONTROL.sub(_broken, text)


def _broken(found: re.Match[str]) -> str:
    return _BROKEN[found[0]]


def _plain(value: Untrusted | str, nonce: str = "") -> str:
    """One block of plain text: no empty lines, and lines that look like a label of a worked example lose the colon."""
    text = _LABEL.sub(r"\1\2\3 -", _LINE_BREAK.sub("\n", _turn(value)))
    return _EMPTY_LINES.sub("\n", text).strip()


FILTERS: Mapping[str, Filter] = {"fence": _fence, "turn": _turn, "plain": _plain}
"""The only filters that may print untrusted text."""
