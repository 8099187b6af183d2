"""Compiled templates: rendered once by Jinja with placeholders; each call substitutes its own escaped texts.

Rendering passes through many functions of Jinja, and a run asks thousands of questions about the same few principles.
A template is therefore rendered once with placeholders in place of the untrusted texts. Each placeholder records the
filter that printed it, and a call substitutes its text, put through that filter. One compiled template serves all calls
of the same shape: the same principle and worked examples, turns of the same roles, and the same texts empty.

Left out on purpose: templates that do more with a text than print it through a filter. They are rendered every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import nodes

from cai.core.types import Example, Message, Principle, Role
from cai.templates.sandbox import FILTERS, PLACEHOLDER_MARK, Placeholder, Turn, Untrusted

Piece = tuple[Role, str]
"""Role and text of one message, as rendered."""
CallShape = tuple[object, ...]

MAX_COMPILED = 500
"""Compiled forms that one template keeps."""
NONCE_PLACEHOLDER = f"{PLACEHOLDER_MARK}nonce{PLACEHOLDER_MARK}"
"""The placeholder for the nonce alone, with which worked examples are fenced."""
_SUPPORTED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Scope, nodes.For, nodes.If, nodes.CondExpr, nodes.Name,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Const, nodes.Neg, nodes.Not, nodes.And, nodes.Or, nodes.Compare,
    nodes.Operand, nodes.Filter,
)  # fmt: skip
"""The nodes of a template that can be compiled: none of them stores or changes what was printed."""


def can_compile(tree: nodes.Template) -> bool:
    """Whether the template only prints what FILTERS return."""
    printed = {id(part) for output in tree.find_all(nodes.Output) for part in output.nodes}
    nested = [node for node in tree.find_all(nodes.Filter) if node.name in FILTERS and id(node) not in printed]
    return not nested and all(isinstance(node, _SUPPORTED) for node in tree.find_all(nodes.Node))


def call_shape(values: Iterable[object]) -> CallShape | None:
    """Equal for all calls that one compiled template can serve; None for values of unknown types."""
    shape = list[object]()
    for value in values:
        kind = type(value)
        if kind is Untrusted:
            shape.append(bool(value))
        elif kind is Principle:
            shape.append(id(value))
        elif kind is str:
            shape.append(value)
        elif isinstance(value, tuple) and (kinds := set(map(type, value))) <= {Example}:
            shape.append(tuple(map(id, value)))
        elif isinstance(value, tuple) and kinds == {Turn}:
            shape.append(tuple([(turn.role, bool(turn.content)) for turn in value]))
        else:
            return None
    return tuple(shape)


class CompiledTemplate:
    """The messages of one call shape, with placeholders for the texts of a call."""

    def __init__(self, pieces: Iterable[Piece], keep_alive: object) -> None:
        """`keep_alive` is referenced as long as this: a call shape identifies principles by their memory address."""
        self._keep_alive = keep_alive
        self._messages = [_message(role, text.split(PLACEHOLDER_MARK)) for role, text in pieces]

    def render(self, values: Mapping[str, object], nonce: str) -> tuple[Message, ...]:
        """The messages with a call's own texts."""
        return tuple([each if isinstance(each, Message) else each(values, nonce) for each in self._messages])


def placeholder_for(name: str, value: object) -> object:
    """`value` of the variable `name`, with a placeholder in place of each untrusted text."""
    if isinstance(value, Untrusted):
        return Placeholder(name, bool(value))
    if isinstance(value, tuple) and value and isinstance(value[0], Turn):
        texts: Any = [Placeholder(f"{name}.{number}", bool(turn.content)) for number, turn in enumerate(value)]
        return tuple(Turn(turn.role, text) for turn, text in zip(value, texts, strict=True))
    return value


def _message(role: Role, parts: list[str]) -> Message | Callable[..., Message]:
    """A Message where there is no placeholder, else the function that substitutes the placeholders."""
    if len(parts) == 1:
        return Message(role, parts[0].strip())
    substitutions = [(number, _substitution(name)) for number, name in enumerate(parts) if number % 2]

    def render(values: Mapping[str, Any], nonce: str) -> Message:
        whole = parts.copy()
        for number, substitution in substitutions:
            whole[number] = substitution(values, nonce)
        return Message(role, "".join(whole).strip())

    return render


def _substitution(placeholder: str) -> Callable[[Mapping[str, Any], str], str]:
    if placeholder == "nonce":
        return lambda values, nonce: nonce
    name, place = placeholder.split(" ")
    escape = FILTERS[name]
    variable, _, turn = place.partition(".")
    if turn:
        number = int(turn)
        return lambda values, nonce: escape(values[variable][number].content, nonce)
    return lambda values, nonce: escape(values[variable], nonce)
