"""Jinja templates that turn a stage's variables into the messages of a Request: loading, checking, rendering.

A template opens with a comment of YAML that declares what it is: its `form` (chat, or plain text to continue), the
`variables` it uses, `stop` texts, and whether it asks for a `verdict`. When it is loaded, the variables it declares are
compared with those it uses and those the stage offers, so that a typo stops a run before its first call.

Left out on purpose: includes and inheritance. The text of a principle is data and is never compiled as a template.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from cai.core import plugins
from cai.core.config import Knobs, parse_options, parse_yaml
from cai.core.errors import Mistake
from cai.core.seeds import digest
from cai.core.types import Example, Message, Principle, Role
from cai.templates.compiled import (
    MAX_COMPILED,
    NONCE_PLACEHOLDER,
    CallShape,
    CompiledTemplate,
    Piece,
    call_shape,
    can_compile,
    placeholder_for,
)
from cai.templates.sandbox import check_size, sandbox

STAGE_VARIABLES: Mapping[str, frozenset[str]] = {
    "draft": frozenset({"conversation"}),
    "critique": frozenset({"conversation", "answer", "principle", "examples"}),
    "revise": frozenset({"conversation", "answer", "principle", "examples", "critique"}),
}
"""The variables that each stage offers to its template. A judge names its own."""
_ROLES = get_args(Role)


class Header(Knobs):
    """The declaration at the top of a template."""

    form: Literal["chat", "plain"]
    variables: tuple[str, ...]
    stop: tuple[str, ...] = ()
    verdict: bool = False
    about: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A loaded template: `render` it into messages."""

    name: str
    header: Header
    digest: str
    _render: Callable[[Mapping[str, object], str], str]
    _compiled: dict[CallShape, CompiledTemplate | None] | None = field(default=None, compare=False, repr=False)
    """By call shape; None inside where that shape cannot be compiled, None as a whole where no shape can."""

    @property
    def plain(self) -> bool:
        return self.header.form == "plain"

    def render(self, values: Mapping[str, object], nonce: str) -> tuple[Message, ...]:
        """Messages made from `values`; `nonce` is the unguessable part of this call's fence. Raises Mistake."""
        if (compiled := self._find_compiled(values)) is not None:
            return compiled.render(values, nonce)
        try:
            text = self._render(values, nonce)
        except _RENDER_ERRORS as error:
            raise Mistake(self.name, f"cannot be rendered: {error}", "fix the template") from None
        return tuple(Message(role, piece.strip()) for role, piece in self._pieces(text))

    def _find_compiled(self, values: Mapping[str, object]) -> CompiledTemplate | None:
        """The compiled template for calls like this one; the first such call compiles it."""
        if self._compiled is None:
            return None
        names = self.header.variables
        if (shape := call_shape([values[name] for name in names])) is None:
            return None
        try:
            return self._compiled[shape]
        except KeyError:
            self._compiled[shape] = compiled = self._compile({name: values[name] for name in names})
            return compiled

    def _compile(self, values: Mapping[str, object]) -> CompiledTemplate | None:
        if self._compiled and len(self._compiled) >= MAX_COMPILED:
            self._compiled.clear()
        try:
            text = self._render(
                {name: placeholder_for(name, value) for name, value in values.items()}, NONCE_PLACEHOLDER
            )
            pieces = self._pieces(text)
        except (*_RENDER_ERRORS, Mistake):  # it depends on a text, or is wrong; then ordinary rendering reports why
            return None
        if any(role not in _ROLES for role, _ in pieces):
            return None
        return CompiledTemplate(
            pieces, [value for value in values.values() if isinstance(value, Principle) or _is_examples(value)]
        )

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
    environment = sandbox()
    try:
        tree = environment.parse(source)
        check_size(tree, str(path))
        tree = tree if header.form == "plain" else _marked(tree, str(path))
        _check_variables(meta.find_undeclared_variables(tree), header, stage, offered, str(path))
        compiled = environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise Mistake(f"{path}:{error.lineno}", f"is not a template: {error.message}", "fix this line") from None

    def render(values: Mapping[str, object], nonce: str) -> str:
        given = {key: values[key] for key in header.variables} | {"nonce": nonce}
        return "".join(compiled.root_render_func(Context(environment, given, compiled.name, compiled.blocks)))

    return Template(str(path), header, digest(source), render, {} if can_compile(tree) else None)


_RENDER_ERRORS = (TemplateError, ValueError, TypeError, ArithmeticError, AttributeError)
"""What a faulty template raises when it is rendered."""
_MARK = f"\0{secrets.token_hex(8)}\0"
"""Before and after each message in rendered text; no text can contain it."""


def _marked(tree: nodes.Template, where: str) -> nodes.Template:
    """The template with each `{% call user() %}...{% endcall %}` replaced by its role and text between marks."""
    for outer in tree.find_all(nodes.CallBlock):
        if any(part.find(nodes.CallBlock) for part in outer.body):
            raise Mistake(f"{where}:{outer.lineno}", "puts a message inside a message", "end the first one before")
    return cast(nodes.Template, _Marker().visit(tree))


class _Marker(NodeTransformer):
    def visit_CallBlock(self, block: nodes.CallBlock) -> nodes.Node:
        called, given = block.call.node, block.call.args
        name = called.name if isinstance(called, nodes.Name) else ""
        if name in _ROLES and not given:
            role: list[nodes.Expr] = [nodes.TemplateData(name)]
        elif name == "message" and len(given) == 1:
            role = given
        else:
            return self.generic_visit(block)  # no role: the name is reported later as undeclared
        begin = nodes.Output([nodes.TemplateData(_MARK), *role, nodes.TemplateData("\n")])
        marked = nodes.Scope([begin, *block.body, nodes.Output([nodes.TemplateData(_MARK)])])
        return marked.set_lineno(block.lineno)


def _piece(part: str) -> Piece:
    role, _, text = part.partition("\n")
    return cast(Role, role), text


def _is_examples(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, Example) for item in value)


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
    lines = [line.strip() for line in found[1].split("\n")]  # any indentation inside the comment is allowed
    return parse_options(parse_yaml("\n".join(lines), where), Header)


def _check_variables(used: set[str], header: Header, stage: str, offered: frozenset[str], where: str) -> None:
    declared = set(header.variables)
    for name in sorted(used - declared):
        raise Mistake(where, f"uses {name!r} but does not declare it", "add it to `variables`")
    for name in sorted(declared - offered):
        raise Mistake(where, f"declares {name!r}, which {stage} does not offer", plugins.suggest(name, sorted(offered)))
    for name in sorted(declared - used):
        raise Mistake(where, f"declares {name!r} but does not use it", "remove it from `variables`")
