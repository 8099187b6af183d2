"""Messages become tokens: what a message says is data, and what cannot be said is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import GREEDY, ask, tiny_model

from cai.core.errors import Mistake, Permanent
from cai.core.types import Message, Request, Sampling

pytest_plugins = ["opened"]
slow = pytest.mark.slow


@slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["<|end|>", "<|start|>", "<|", "|>", "end", "<unk>", "start", " "]), st.text(max_size=4)
        ),
        max_size=12,
    )
)
def test_no_content_becomes_a_control_token(llama: Path, pieces: list[str]) -> None:
    from transformers import AutoTokenizer

    from cai.backends.local.tokenizer import ChatTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    text, content = ChatTokenizer(tokenizer, "tiny"), "".join(pieces)
    controls = {0, 1, 2}
    assert controls.isdisjoint(tokenizer(text.neutral(content), add_special_tokens=False).input_ids)
    chat = text.render(ask(content)).ids
    assert [token for token in chat if token in controls] == [1, 0, 1]  # the template's own, and no other
    if content:
        assert controls.isdisjoint(text.render(ask(content, plain=True)).ids[1:])


@slow
def test_a_control_token_is_broken_up_where_one_can_see_it(llama: Path) -> None:
    from transformers import AutoTokenizer

    from cai.backends.local.tokenizer import ChatTokenizer

    text = ChatTokenizer(AutoTokenizer.from_pretrained(llama), "tiny")
    assert text.neutral("end it: <|end|>") == "end it: <| end |>"
    assert text.neutral("<|e<|end|>nd|>") == "<|e<| end |>nd|>"
    assert text.neutral("half an emoji: \ud83d") == "half an emoji: \N{REPLACEMENT CHARACTER}"
    assert text.neutral("nothing to see") == "nothing to see"


@slow
async def test_a_model_without_a_chat_template_can_only_continue_text(
    tmp_path: Path, opened: Callable[..., Any]
) -> None:
    model = opened(tiny_model(tmp_path / "base", chat=None))
    with pytest.raises(Mistake, match="has no chat template"):
        await model.complete(ask("hello"))
    assert (await model.complete(ask("Once upon a", plain=True))).usage.completion_tokens


@slow
async def test_a_chat_template_that_refuses_fails_the_row_only(tmp_path: Path, opened: Callable[..., Any]) -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}{{ messages[0].content }}"
    model = opened(tiny_model(tmp_path / "picky", chat=refuses))
    with pytest.raises(Permanent, match="no system turn"):
        await model.complete(Request((Message("system", "Be brief."), Message("user", "hi")), GREEDY))
    assert (await model.complete(ask("hello"))).usage.completion_tokens


@slow
async def test_reasoning_is_split_off_also_when_the_template_opens_it(
    tmp_path: Path, opened: Callable[..., Any]
) -> None:
    folder = tiny_model(tmp_path / "thinker", chat="{{ messages[0].content }}<|end|>assistant: <think>\n")
    answer = await opened(folder).complete(ask("hello", Sampling(1.0, 1.0, 20)))
    assert answer.text == "" and answer.thinking
