"""How models are asked: Jinja templates, sandboxed, that turn a stage's variables into a Request's messages.

A template opens with a comment of YAML that declares what it is: its `form` (chat, or plain text to continue), the
`variables` it uses, `stop` texts, and whether it asks for a `verdict`. What it declares, what it uses and what the
stage offers are compared when it is loaded, so that a typo stops a run before its first call.

Text written by a model or a stranger arrives as `Untrusted` and cannot be printed by a template until it has passed
a filter: `fence` puts it between delimiters nobody can guess, `turn` makes it the content of its own chat turn,
`plain` defuses the labels of plain-text worked cases. All three break chat control tokens.

Left out on purpose: includes and inheritance; principle text is data and never compiled.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from cai.core import plugins
from cai.core.config import Knobs, parse_options, parse_yaml
from cai.core.errors import Mistake
from cai.core.seeds import digest
from cai.core.types import Example, Message, Principle, Role
from cai.templates.compiled import MOST, NONCE, Filter, Mould, Piece, Placeholder, Shape, pours, shape

STAGE_VARIABLES: Mapping[str, frozenset[str]] = {
    "draft": frozenset({"conversation"}),
    "critique": frozenset({"conversation", "answer", "principle", "examples"}),
    "revise": frozenset({"conversation", "answer", "principle", "examples", "critique"}),
}
"""The variables that each stage gives its template. A judge names its own."""
ROLES = ("system", "user", "assistant")
MAX_NODES = 2000
MAX_LOOPS = 3
MAX_NUMBER = 10_000


class Header(Knobs):
    """The declaration at the top of a template."""

    form: Literal["chat", "plain"]
    variables: tuple[str, ...]
    stop: tuple[str, ...] = ()
    verdict: bool = False
    about: str = ""


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Text somebody else wrote. A template that prints it without a filter is refused."""

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


@dataclass(frozen=True, slots=True)
class Template:
    """A loaded template: `render` it into messages."""

    name: str
    header: Header
    digest: str
    _render: Callable[[Mapping[str, Any], str], str]
    _moulds: dict[Shape, Mould | None] | None = field(default=None, compare=False, repr=False)
    """None: it cannot be poured, or not in that shape."""

    @property
    def plain(self) -> bool:
        return self.header.form == "plain"

    def render(self, values: Mapping[str, Any], nonce: str) -> tuple[Message, ...]:
        """Messages made from `values`; `nonce` is the unguessable part of this call's fence. Raises Mistake."""
        if (mould := self._mould(values)) is not None:
            return mould.filled(values, nonce)
        try:
            text = self._render(values, nonce)
        except _UNRENDERED as error:
            raise Mistake(self.name, f"cannot be rendered: {error}", "mend the template") from None
        return tuple(Message(role, piece.strip()) for role, piece in self._pieces(text))

    def _mould(self, values: Mapping[str, Any]) -> Mould | None:
        """The mould for calls like this one, poured when the first comes."""
        if self._moulds is None:
            return None
        names = self.header.variables
        if (like := shape([values[name] for name in names], Untrusted, Turn)) is None:
            return None
        try:
            return self._moulds[like]
        except KeyError:
            self._moulds[like] = mould = self._poured({name: values[name] for name in names})
            return mould

    def _poured(self, values: Mapping[str, Any]) -> Mould | None:
        if self._moulds and len(self._moulds) >= MOST:
            self._moulds.clear()
        try:
            text = self._render({name: _slotted(name, value) for name, value in values.items()}, NONCE)
            pieces = self._pieces(text)
        except (*_UNRENDERED, Mistake):  # it looks at what a text says, or is wrong, and then rendering says how
            return None
        if any(role not in ROLES for role, _ in pieces):
            return None
        held = [value for value in values.values() if isinstance(value, Principle) or _cases(value)]
        return Mould(pieces, _THROUGH, held)

    def _pieces(self, text: str) -> list[Piece]:
        if self.plain:
            return [("user", text)]
        parts = text.split(_MARK)
        if between := "".join(parts[::2]).strip():
            raise Mistake(self.name, f"has text outside every message: {between[:40]!r}", "put it in {% call user() %}")
        pieces = [_piece(part) for part in parts[1::2]]
        if not pieces or pieces[-1][0] != "user":
            raise Mistake(self.name, "does not end in a user message", "end it with {% call user() %}")
        return pieces


def load_template(stage: str, name: str, offered: frozenset[str] | None = None, folder: Path | None = None) -> Template:
    """The template for `stage`: a name in `prompts/STAGE` or in `folder`, or a path to a .j2 file. Raises Mistake.

    `offered` are the variables that it may declare, those of the stage where not given.
    """
    path = _locate(stage, name, folder)
    offered = STAGE_VARIABLES[stage] if offered is None else offered
    try:
        source = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(str(path), f"cannot be read: {error}", "save it as UTF-8") from None
    header = _header(source, str(path))
    environment = _environment()
    try:
        tree = environment.parse(source)
        _check_size(tree, str(path))
        tree = tree if header.form == "plain" else _marked(tree, str(path))
        _check_variables(meta.find_undeclared_variables(tree), header, stage, offered, str(path))
        compiled = environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise Mistake(f"{path}:{error.lineno}", f"is not a template: {error.message}", "mend the line") from None

    def render(values: Mapping[str, Any], nonce: str) -> str:
        given = {key: values[key] for key in header.variables} | {"nonce": nonce}
        return "".join(compiled.root_render_func(Context(environment, given, compiled.name, compiled.blocks)))

    return Template(str(path), header, digest(source), render, {} if pours(tree, _THROUGH) else None)


_UNRENDERED = (TemplateError, ValueError, TypeError, ArithmeticError, AttributeError)
"""What a template that goes wrong raises."""
_MARK = f"\0{secrets.token_hex(8)}\0"
"""Before and after each message in what a template renders to; no text can contain it."""


def _marked(tree: nodes.Template, where: str) -> nodes.Template:
    """The template with `{% call user() %}...{% endcall %}` as a role and text between marks, not as a macro's call."""
    for outer in tree.find_all(nodes.CallBlock):
        if any(part.find(nodes.CallBlock) for part in outer.body):
            raise Mistake(f"{where}:{outer.lineno}", "puts a message inside a message", "end the first one before")
    return cast(nodes.Template, _Marker().visit(tree))


class _Marker(NodeTransformer):
    def visit_CallBlock(self, block: nodes.CallBlock) -> nodes.Node:
        called, given = block.call.node, block.call.args
        name = called.name if isinstance(called, nodes.Name) else ""
        if name in ROLES and not given:
            role: list[nodes.Expr] = [nodes.TemplateData(name)]
        elif name == "message" and len(given) == 1:
            role = given
        else:
            return self.generic_visit(block)  # of no role: its name will be found to be undeclared
        begin = nodes.Output([nodes.TemplateData(_MARK), *role, nodes.TemplateData("\n")])
        marked = nodes.Scope([begin, *block.body, nodes.Output([nodes.TemplateData(_MARK)])])
        return marked.set_lineno(block.lineno)


def _piece(part: str) -> Piece:
    role, _, text = part.partition("\n")
    return cast(Role, role), text


def _cases(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, Example) for item in value)


def _slotted(name: str, value: Any) -> Any:
    """A value of a template with slots in the place of foreign texts."""
    if isinstance(value, Untrusted):
        return Placeholder(name, bool(value))
    if isinstance(value, tuple) and value and isinstance(value[0], Turn):
        slots = (Placeholder(f"{name}.{number}", bool(turn.content)) for number, turn in enumerate(value))
        return tuple(Turn(turn.role, cast(Untrusted, slot)) for turn, slot in zip(value, slots, strict=True))
    return value


def turns(messages: tuple[Message, ...]) -> tuple[Turn, ...]:
    """A conversation as templates see it."""
    return tuple(Turn(message.role, Untrusted(message.content)) for message in messages)


def _locate(stage: str, name: str, folder: Path | None) -> Path:
    folders = [Path("prompts", stage), *([folder] if folder else []), plugins.shipped("prompts", stage)]
    for candidate in (*(inside / f"{name}.j2" for inside in folders), Path(name)):
        if candidate.is_file():
            return candidate
    known = sorted({file.stem for inside in folders for file in inside.glob("*.j2")})
    raise Mistake(f"templates.{stage}", f"there is no template {name!r}", plugins.suggest(name, known))


def _header(source: str, where: str) -> Header:
    found = re.match(r"\s*\{#-?(.*?)-?#\}", source, re.DOTALL)
    if not found:
        raise Mistake(f"{where}:1", "does not open with its declaration", "begin with {# form: ... variables: [...] #}")
    lines = [line.strip() for line in found[1].split("\n")]  # indented to taste inside the comment
    return parse_options(parse_yaml("\n".join(lines), where), Header)


def _check_variables(used: set[str], header: Header, stage: str, offered: frozenset[str], where: str) -> None:
    declared = set(header.variables)
    for name in sorted(used - declared):
        raise Mistake(where, f"uses {name!r} but does not declare it", "add it to `variables`")
    for name in sorted(declared - offered):
        raise Mistake(where, f"declares {name!r}, which {stage} does not offer", plugins.suggest(name, sorted(offered)))
    for name in sorted(declared - used):
        raise Mistake(where, f"declares {name!r} but does not use it", "remove it from `variables`")


def _check_size(tree: nodes.Template, where: str) -> None:
    # the sandbox does not stop 'a' * 10**9 or loops within loops; a template that asks a question needs neither
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


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox; foreign text has no attributes there."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not isinstance(obj, (Untrusted, Placeholder)) and super().is_safe_attribute(obj, attr, value)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    for name in set(environment.filters) - {"trim", "indent", "length", "first", "last", "join", "upper", "lower"}:
        del environment.filters[name]  # `center(10**9)` and friends
    environment.globals.clear()  # `range`, `lipsum`, `cycler`
    printing = {name: _printing(name, through) for name, through in _THROUGH.items()}
    environment.filters.update(printing | {"fence": _fence})
    return environment


_CONTROL = re.compile(r"<(?=\|[^|<>\n]{1,40}\|>|/?s>|(?:start|end)_of_turn>|/?think>)|\[(?=/?INST\])|<(?=<SYS>>)")
_FENCE = re.compile(r"<(?=/?text\b)", re.IGNORECASE)
_BREAK = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
"""What ends a line for a reader, beside the line feed."""
_BLANK = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]"
"""Blanks, and characters that nobody sees."""
_LABEL = re.compile(
    rf"^({_BLANK}*)(question|(?:better{_BLANK}+)?answer(?:{_BLANK}+[ab])?|reply|critique{_BLANK}*request|critique"
    rf"|revision{_BLANK}*request|revision|verdict|rule|check|comparison|score|human|assistant|user)({_BLANK}*):",
    re.IGNORECASE | re.MULTILINE,
)


@pass_context
def _fence(context: Context, value: Untrusted | str | Placeholder) -> str:
    return value.through("fence") if type(value) is Placeholder else _fenced(cast(str, value), context.parent["nonce"])


def _fenced(value: Untrusted | str, nonce: str) -> str:
    """Between `<text id=...>` lines that carry the call's nonce; look-alikes inside are broken visibly."""
    inside = _turned(value)
    if "<" in inside:
        inside = _FENCE.sub("‹", inside)
    return f'<text id="{nonce}">\n{inside}\n</text id="{nonce}">'


def _turned(value: Untrusted | str, nonce: str = "") -> str:
    """The text with chat control tokens broken visibly: `<|im_end|>` becomes `‹|im_end|>`."""
    text = value if isinstance(value, str) else value.text
    if "<" not in text and "[" not in text:  # most texts; looking is faster than a pattern that finds nothing
        return text
    return _CONTROL.sub(lambda found: "‹" if found[0] == "<" else "⟦", text)


def _plain(value: Untrusted | str, nonce: str = "") -> str:
    """One block of plain text: no empty lines, and lines that look like a label of a worked case lose the colon."""
    text = _LABEL.sub(r"\1\2\3 -", _BREAK.sub("\n", _turned(value)))
    return re.sub(r"\n\s*\n+", "\n", text).strip()


_THROUGH: Mapping[str, Filter] = {"fence": _fenced, "turn": _turned, "plain": _plain}
"""What may print foreign text."""


def _printing(name: str, through: Filter) -> Callable[[Untrusted | str | Placeholder], str]:
    """A filter as Jinja has it."""
    return lambda value: value.through(name) if type(value) is Placeholder else through(value, "")
