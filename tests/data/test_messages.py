"""One definition of a message: every form that files use, wherever messages are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cai.core.types import Failure, Message
from cai.data.messages import answer_dicts, message_dicts, messages_of, parse_dicts, parse_messages
from cai.data.pairs import read_pairs
from cai.data.prompts import read_prompts
from cai.data.training_rows import gather_training_rows
from cai.runs.recipe import PromptSource

FORMS: list[Any] = [
    [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    [{"from": "system", "value": "be brief"}, {"from": "human", "value": "hi"}],
    [{"role": "System", "content": "be brief"}, {"role": "User", "content": [{"type": "text", "text": "hi"}]}],
    [{"role": "system", "content": "be brief", "from": None}, {"role": None, "from": "user", "content": ["h", "i"]}],
    {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]},
]
MEANT = (Message("system", "be brief"), Message("user", "hi"))


@pytest.mark.parametrize("form", FORMS)
def test_prompts_pairs_and_training_rows_accept_the_same_messages(tmp_path: Path, form: Any) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": form, "chosen": answer_dicts("a"), "rejected": answer_dicts("b")}))
    (pair,) = read_pairs(path, "trl")
    assert not isinstance(pair, Failure)
    assert pair.prompt == MEANT
    path.write_text(json.dumps({"messages": form}))
    (prompt,) = read_prompts(PromptSource(path=str(path)))
    assert not isinstance(prompt, Failure)
    assert prompt.messages == MEANT
    path.write_text(json.dumps({"prompt": form, "completion": answer_dicts("a")}))
    found = gather_training_rows(path, "messages", tokens=lambda row: 1, max_length=9, held_out=0.0)
    assert found.rows[0]["prompt"] == message_dicts(MEANT)


def test_a_message_survives_the_way_to_a_dictionary_and_back() -> None:
    assert messages_of(message_dicts(MEANT)) == MEANT == parse_messages(message_dicts(MEANT))


def test_roles_of_tools_stay_for_a_chat_template_and_count_as_turns_elsewhere() -> None:
    turns = [{"role": "tool", "content": "42"}, {"from": "gpt", "value": "It is 42."}]
    assert [message.role for message in parse_messages(turns)] == ["user", "assistant"]
    assert [each["role"] for each in parse_dicts(turns)] == ["tool", "assistant"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (3, "not text or a list of turns"),
        (["hi"], "turn 1 is a str, not an object"),
        ([{"role": "robot", "content": "x"}], "has no role that is known"),
        ([{"content": "x"}], "has no role"),
        ([{"role": "user"}], "turn 1 is a NoneType, not text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "a part of turn 1"),
        ([{"role": "user", "content": "half \ud800"}], "not valid Unicode"),
    ],
)
def test_what_is_no_message_is_refused_with_a_reason(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_messages(value)
