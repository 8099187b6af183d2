"""Converts messages to token ids and token ids to text, with a Hugging Face tokenizer and its chat template.

The text of a message is data. A control token in it (`<|im_end|>`) is broken up visibly before the chat template is
applied, so that no text can end its own message or start another.

Left out on purpose: truncation. A prompt that does not fit is an error of its row.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cai.core.errors import Mistake, Permanent
from cai.core.types import Message, Request
from cai.data.messages import message_dicts


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A request as text and ids."""

    text: str
    ids: tuple[int, ...]
    plain: bool

    @property
    def in_thought(self) -> bool:
        """Whether the chat template has already started the model's reasoning."""
        return self.text.rstrip().endswith("<think>")


class ChatTokenizer:
    """One tokenizer and its chat template."""

    def __init__(self, tokenizer: Any, model: str) -> None:
        self._tokenizer = tokenizer
        self._model = model
        # the event loop and the engine's thread both use the tokenizer, which is not known to be thread-safe
        self._lock = threading.Lock()
        self._controls = _control_tokens(tokenizer)
        spellings = sorted(filter(None, self._controls.values()), key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")

    def render(self, request: Request) -> RenderedPrompt:
        """The request as text and ids. Raises Mistake (no chat template) or Permanent (this request is impossible)."""
        messages = [Message(message.role, self.neutral(message.content)) for message in request.messages]
        text = messages[0].content if request.plain else self._templated(messages)
        ids = self._encode(text, plain=request.plain)
        if not ids:
            raise Permanent("empty_prompt", "the prompt has no tokens")
        return RenderedPrompt(text, ids, request.plain)

    def continuation(self, prompt: RenderedPrompt, text: str) -> tuple[int, ...]:
        """The ids of `text` after `prompt`: tokenized together if that keeps the prompt's ids, else separately."""
        text = self.neutral(text)
        whole = self._encode(prompt.text + text, plain=prompt.plain)
        if whole[: len(prompt.ids)] == prompt.ids and len(whole) > len(prompt.ids):
            return whole[len(prompt.ids) :]
        return self._encode(text, plain=False)

    def neutral(self, content: str) -> str:
        """`content` with every control token in it broken by spaces: `<|im_end|>` becomes `<| im_end |>`."""
        content = _whole_characters(content)
        while self._control_pattern.search(content):
            content = self._control_pattern.sub(lambda match: _broken(match[0]), content)
        # a tokenizer may normalise another spelling into one; the unknown token is excluded, since odd text becomes it
        found = self._controls.keys() & set(self._encode(content, plain=False))
        if found - {self._tokenizer.unk_token_id}:
            raise Permanent("control_token", "the text contains a control token in a spelling that cannot be broken up")
        return content

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without control tokens."""
        with self._lock:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def stop_finder(self, stops: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        """A function that returns whether the last generated ids contain one of `stops`."""
        # a token is at least one byte, so a stop text reaches back no further than this
        window = max((len(stop.encode()) for stop in stops), default=0) + 4

        def found(ids: Sequence[int]) -> bool:
            if not stops:
                return False
            text = self.decode(ids[-window:])
            return any(stop in text for stop in stops)

        return found

    def ends(self, declared: Sequence[int]) -> frozenset[int]:
        """The ids that end an answer: those `declared` by the model, and the chat template's end of a message."""
        found = set(declared)
        if self._tokenizer.chat_template:
            turns = [Message("user", "hi"), Message("assistant", "ok")]
            _, _, after = self._templated(turns, prompt=False).rpartition("ok")
            found.update(token for token in self._encode(after.strip(), plain=False)[:1] if token in self._controls)
        return frozenset(found)

    def _templated(self, messages: Sequence[Message], *, prompt: bool = True) -> str:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            fix = "name a chat model, or use templates that continue plain text"
            raise Mistake(self._model, "has no chat template", fix)
        turns = message_dicts(messages)
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            # mostly its own refusal: no system message, roles that do not alternate; else a template with a fault
            raise Permanent("chat_template", f"the model's chat template refuses this: {error}") from error
        return str(text)

    def _encode(self, text: str, *, plain: bool) -> tuple[int, ...]:
        """`plain`: the tokenizer adds the start token; otherwise the chat template has added it."""
        with self._lock:
            ids = tuple(self._tokenizer(text, add_special_tokens=plain, verbose=False).input_ids)
        # some tokenizers also add an end token, which a prompt to continue must not have
        return ids[:-1] if plain and ids[-1:] == (self._tokenizer.eos_token_id,) else ids


def _control_tokens(tokenizer: Any) -> dict[int, str]:
    """Id -> spelling of the tokens that are not text: the special ones, and added tags such as `<think>`.

    Other added tokens (mostly runs of spaces) are text.
    """
    added = tokenizer.added_tokens_decoder.items()
    found = {id: str(token) for id, token in added if token.special or re.fullmatch(r"<.+>|\[.+\]", str(token))}
    return found | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


def _broken(token: str) -> str:
    """The token with spaces inside its brackets: readable, and no longer a control token."""
    if len(token) == 1:
        return "\N{REPLACEMENT CHARACTER}"
    left, name, right = re.fullmatch(r"(\W*)(.*?)(\W*)", token, re.DOTALL).groups()  # type: ignore[union-attr]
    if not left or not name:
        return f"{token[0]} {token[1:]}"
    return f"{left} {name} {right}".rstrip()


def _whole_characters(text: str) -> str:
    """Half an emoji, cut by an earlier model, becomes a replacement character: tokenizers accept UTF-8 only."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
