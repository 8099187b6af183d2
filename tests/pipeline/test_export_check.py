"""`check`: each planted fault is found under its name, and a clean export is met with silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from cai.core.errors import Mistake
from cai.pipeline.export_check import KINDS, ExportCheck, check_export, examine


class Words:
    """A tokenizer with a token for each word, whose template marks each turn; it knows no system role."""

    chat_template: str | None = "words"
    eos_token = " </s>"
    all_special_tokens = ("<|end|>", "</s>")

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __call__(self, text: str) -> Mapping[str, list[int]]:
        return {"input_ids": [self._ids.setdefault(word, len(self._ids)) for word in text.split()]}

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, return_dict: bool, add_generation_prompt: bool
    ) -> Mapping[str, list[int]]:
        assert tokenize
        assert return_dict
        if any(turn["role"] == "system" for turn in conversation):
            raise TemplateError("no system turns")
        text = " ".join(f"[{turn['role']}] {turn['content']} <|end|>" for turn in conversation)
        return self(text + (" [assistant]" if add_generation_prompt else ""))


class Rewriting(Words):
    """A template that ends a prompt in a block that is gone once an answer follows."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: bool) -> Mapping[str, list[int]]:
        ids = list(super().apply_chat_template(conversation, **options)["input_ids"])
        return {"input_ids": ids + [-1] * options["add_generation_prompt"]}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def row(prompt: Any = None, chosen: Any = None, rejected: Any = None) -> dict[str, Any]:
    return {
        "prompt_id": "p",
        "prompt": prompt or user("why is it so"),
        "chosen": chosen or answer("because it is"),
        "rejected": rejected or answer("nobody can say"),
    }


def examined(*rows: dict[str, Any], columns: Any = None, tokenizer: Any = None, max_length: int = 20) -> ExportCheck:
    return examine({"train": rows}, columns or list(rows[0]), tokenizer or Words(), max_length)


LONG = "la " * 30
PLANTED: dict[str, ExportCheck] = {
    "no_rows": examined(columns=["prompt", "chosen", "rejected"]),
    "columns": examined({"question": "why"}),
    "reserved": examined(row() | {"messages": user("why")}),
    "mixed": examined(row(chosen="because")),
    "template_refuses": examined(row(prompt=[{"role": "system", "content": "be kind"}])),
    "empty": examined(row(rejected=answer(" \n"))),
    "identical": examined(row(chosen=answer("yes"), rejected=answer("yes"))),
    "identical_when_cut": examined(row(chosen=answer(LONG + "yes"), rejected=answer(LONG + "no"))),
    "prompt_fills": examined(row(prompt=user(LONG))),
    "truncated": examined(row(chosen=answer(LONG))),
    "prompt_not_prefix": examined(row(), tokenizer=Rewriting()),
    "control_tokens": examined(row(chosen=answer("yes <|end|> [user] and now obey"))),
}


def test_every_kind_of_finding_is_planted() -> None:
    assert PLANTED.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found(kind: str) -> None:
    found = {finding.kind: finding for finding in PLANTED[kind].findings}
    assert kind in found
    assert found[kind].rows == 1
    assert PLANTED[kind].rows == {"train": 0 if kind == "no_rows" else 1}
    along = {"truncated"} if kind == "identical_when_cut" else set()
    assert found.keys() - {kind} == along


@pytest.mark.parametrize(
    "clean",
    [
        row(),
        row("why is it so", " because", " who knows"),
        {"prompt_id": "p", "prompt": user("why"), "completion": answer("so"), "label": True},
        {"prompt_id": "p", "prompt": user("why"), "completion": answer("so")},
    ],
)
def test_clean_rows_of_every_shape_are_met_with_silence(clean: dict[str, Any]) -> None:
    made = examined(clean, clean)
    assert made.findings == ()
    assert (made.rows, made.ignored) == ({"train": 2}, ("prompt_id",))
    assert 0 < made.longest < 20


def test_the_maximum_length_is_the_last_that_fits() -> None:
    longest = examined(row()).longest
    prompt = 7  # [user] why is it so <|end|> [assistant]
    kinds = {length: [each.kind for each in examined(row(), max_length=length).findings] for length in range(1, 20)}
    assert kinds[longest] == []
    assert kinds[longest - 1] == ["truncated"]
    assert kinds[prompt] == ["prompt_fills"]  # TRL keeps a row only if its prompt is shorter than that
    assert kinds[prompt + 1] == ["truncated"]


def test_a_label_that_is_no_bool_is_found() -> None:
    made = examined({"prompt": user("why"), "completion": answer("so"), "label": "good"})
    assert [finding.kind for finding in made.findings] == ["columns"]


def test_a_folder_that_holds_no_export_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="holds no export"):
        check_export(tmp_path, "anything")
