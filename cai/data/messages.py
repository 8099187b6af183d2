"""A message as a dictionary and back, and which messages of a file are accepted.

Files use several names for the same thing: `role` or `from`, `content` or `value`, `human` or `user`, text or a list of
text parts. All of them are accepted wherever messages are read: in prompts, in pairs and in training rows. A tool's
result counts as a user turn, a tool call as an assistant turn.

Left out on purpose: images and other parts that are not text; a message with one of them is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from cai.core.types import Message, Role

MessageDict = dict[str, str]
"""`role` and `content`, as chat templates and chat APIs take a message."""

_SYNONYMS: Mapping[str, Role] = {
    "system": "system",
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
}
_OTHER_ROLES: Mapping[str, Role] = {
    "developer": "system",
    **dict.fromkeys(("tool", "observation", "function", "ipython"), "user"),
    "function_call": "assistant",
}
"""Roles that some chat templates know by these names, and the role that each counts as everywhere else."""


def message_dicts(messages: Iterable[Message]) -> list[MessageDict]:
    """Messages as dictionaries."""
    return [{"role": message.role, "content": message.content} for message in messages]


def answer_dicts(text: str) -> list[MessageDict]:
    """An answer as a list of one message, as it follows a conversation."""
    return [{"role": "assistant", "content": text}]


def messages_of(dicts: Iterable[Mapping[str, str]]) -> tuple[Message, ...]:
    """Messages from dictionaries that `message_dicts` or `parse_dicts` made."""
    return tuple(Message(cast(Role, each["role"]), each["content"]) for each in dicts)


def parse_messages(value: object, what: str = "") -> tuple[Message, ...]:
    """Messages from a value of a file: a list of them, one, or `{"messages": [...]}`. Raises ValueError.

    `what` names the value in errors.
    """
    return tuple(_message(turn, name) for turn, name in _named_turns(value, what))


def parse_dicts(value: object, what: str = "") -> list[MessageDict]:
    """The same as dictionaries, for a chat template: a role that is no synonym, such as `tool`, stays as it is."""
    return [_message_dict(turn, name) for turn, name in _named_turns(value, what)]


def parse_text(value: object, what: str) -> str:
    """`value` as text that can be written as UTF-8. Raises ValueError, in which `what` names the value."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is a {type(value).__name__}, not text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{what} is not valid Unicode")
    return value


def find_role(name: str) -> Role | None:
    """The role that a file calls `name`, in any case; None for an unknown name."""
    return _SYNONYMS.get(name.lower()) or _OTHER_ROLES.get(name.lower())


def _named_turns(value: object, what: str) -> Iterable[tuple[Mapping[str, object], str]]:
    if isinstance(value, Mapping):
        value = value.get("messages", [value])
    if not isinstance(value, list):
        raise ValueError(f"{what or 'messages'} is a {type(value).__name__}, not text or a list of turns")
    for number, turn in enumerate(value, 1):
        name = f"turn {number} of {what}" if what else f"turn {number}"
        if not isinstance(turn, Mapping):
            raise ValueError(f"{name} is a {type(turn).__name__}, not an object")
        yield turn, name


def _message(turn: Mapping[str, object], what: str) -> Message:
    if (role := find_role(_role_name(turn))) is None:
        raise ValueError(f"{what} has no role that is known: system, user or assistant")
    return Message(role, _content(turn, what))


def _message_dict(turn: Mapping[str, object], what: str) -> MessageDict:
    name = _role_name(turn)
    if not name:
        raise ValueError(f"{what} has no role")
    return {
        "role": _SYNONYMS.get(name.lower()) or parse_text(name, f"the role of {what}"),
        "content": _content(turn, what),
    }


def _role_name(turn: Mapping[str, object]) -> str:
    role = _first_value(turn, "role", "from")
    return "" if role is None else str(role)


def _content(turn: Mapping[str, object], what: str) -> str:
    content = _first_value(turn, "content", "value")
    if not isinstance(content, list):
        return parse_text(content, what)
    parts = [_first_value(part, "text", "value") if isinstance(part, Mapping) else part for part in content]
    return "".join(parse_text(part, f"a part of {what}") for part in parts)


def _first_value(turn: Mapping[str, object], *names: str) -> object:
    """The first of these that has a value; parquet fills columns that a row lacks with None."""
    return next((turn[name] for name in names if turn.get(name) is not None), None)
