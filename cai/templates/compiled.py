"""A template rendered once for each principle: what stays the same is kept as text, and a call fills in what differs.

A rendering goes through many functions of Jinja, and a run asks thousands of questions by the same few principles.
So a template is poured with slots in the place of foreign texts, by Jinja as ever; each slot leaves a hole where a
filter has printed it, and a hole is filled by that filter. A mould serves calls of the same shape: the same principle
and worked cases, turns of the same roles, the same texts empty.

Left out on purpose: templates that do more with a text than print it through a filter. They are rendered every time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes

from cai.core.types import Example, Message, Principle, Role

Filter = Callable[[Any, str], str]
"""A text and the call's nonce -> what is printed."""
Piece = tuple[Role, str]
"""Role and text of one message, as rendered."""
Shape = tuple[object, ...]

MOST = 500
"""Moulds that a template keeps."""
_HOLE = f"\0{secrets.token_hex(8)}\0"
"""Before and after a hole's name in what a template renders to; no text can contain it."""
NONCE = f"{_HOLE}nonce{_HOLE}"
"""The hole for the nonce by itself, with which worked cases are fenced."""
_KNOWN = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Scope, nodes.For, nodes.If, nodes.CondExpr, nodes.Name,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Const, nodes.Neg, nodes.Not, nodes.And, nodes.Or, nodes.Compare,
    nodes.Operand, nodes.Filter,
)  # fmt: skip
"""What a template may be made of: nothing that keeps or changes what was printed."""


def pours(tree: nodes.Template, filters: Iterable[str]) -> bool:
    """Whether all that a template does with what `filters` give is to print it."""
    printed = {id(part) for output in tree.find_all(nodes.Output) for part in output.nodes}
    inside = [each for each in tree.find_all(nodes.Filter) if each.name in filters and id(each) not in printed]
    return not inside and all(isinstance(node, _KNOWN) for node in tree.find_all(nodes.Node))


@dataclass(frozen=True, slots=True, eq=False)
class Placeholder:
    """Stands for a foreign text while a template is poured."""

    place: str
    full: bool

    def __bool__(self) -> bool:
        return self.full

    def __eq__(self, other: object) -> bool:
        raise TypeError("compares a text that is not known yet")

    def __repr__(self) -> str:
        raise ValueError("prints a text without a filter")

    def through(self, filter: str) -> str:
        """The hole that is left where a filter prints it."""
        return f"{_HOLE}{filter} {self.place}{_HOLE}"


def shape(values: Iterable[Any], foreign: type, turn: type) -> Shape | None:
    """What `values` of a template have in common with those that its mould serves; None where that cannot be told.

    `foreign` and `turn` are the types of foreign texts and of the turns of a conversation.
    """
    common = list[object]()
    for value in values:
        kind = type(value)
        if kind is foreign:
            common.append(bool(value))
        elif kind is Principle:
            common.append(id(value))
        elif kind is str:
            common.append(value)
        elif kind is tuple and (kinds := set(map(type, value))) <= {Example}:
            common.append(tuple(map(id, value)))
        elif kind is tuple and kinds == {turn}:
            common.append(tuple([(item.role, bool(item.content)) for item in value]))
        else:
            return None
    return tuple(common)


class Mould:
    """What messages of one shape are made of."""

    def __init__(self, pieces: Iterable[Piece], filters: Mapping[str, Filter], held: object) -> None:
        """`held` lives as long: a shape knows principles by their place in memory."""
        self._held = held
        self._messages = [_message(role, text.split(_HOLE), filters) for role, text in pieces]

    def filled(self, values: Mapping[str, Any], nonce: str) -> tuple[Message, ...]:
        """The messages for a call's own texts."""
        return tuple([each if isinstance(each, Message) else each(values, nonce) for each in self._messages])


def _message(role: Role, parts: list[str], filters: Mapping[str, Filter]) -> Message | Callable[..., Message]:
    """A message without holes as it is, and else what fills its holes."""
    if len(parts) == 1:
        return Message(role, parts[0].strip())
    holes = [(number, _hole(name, filters)) for number, name in enumerate(parts) if number % 2]

    def filled(values: Mapping[str, Any], nonce: str) -> Message:
        whole = parts.copy()
        for number, hole in holes:
            whole[number] = hole(values, nonce)
        return Message(role, "".join(whole).strip())

    return filled


def _hole(name: str, filters: Mapping[str, Filter]) -> Callable[[Mapping[str, Any], str], str]:
    if name == "nonce":
        return lambda values, nonce: nonce
    called, place = name.split(" ")
    through = filters[called]
    variable, _, turn = place.partition(".")
    if turn:
        number = int(turn)
        return lambda values, nonce: through(values[variable][number].content, nonce)
    return lambda values, nonce: through(values[variable], nonce)
