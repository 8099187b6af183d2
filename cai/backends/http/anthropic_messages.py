"""Anthropic's Messages API: system apart from the turns, content in blocks, thinking in blocks of its own.

Left out on purpose: prompt caching and tools; `extra_body` can ask for extended thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from cai.backends.anthropic import Options
from cai.backends.http.batch_api import AnthropicDesk
from cai.backends.http.batches import Batches
from cai.backends.http.client import Post, Remote
from cai.backends.http.completion import completion, count, joined
from cai.backends.http.connection import Wire
from cai.core.errors import Mistake
from cai.core.types import Completion, Model, Request, Score, Usage

VERSION = "2023-06-01"


def open_messages(options: Options) -> Model:
    """The model at the Messages API. Raises Mistake where its key is not there."""
    key = options.key("api.anthropic.com", "ANTHROPIC_API_KEY")
    headers = {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})
    wire = Wire(options, headers, key)
    remote = Remote(options, Messages(options), _identity(options), wire)
    return Batches(remote, AnthropicDesk(wire), Path(options.batch), options.batch_poll) if options.batch else remote


def _identity(options: Options) -> dict[str, str]:
    said = {"engine": "anthropic", "model": options.model, "endpoint": options.place}
    return said | ({"extra_body": to_json(options.extra_body).decode()} if options.extra_body else {})


class Messages:
    """The dialect."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def put(self, request: Request) -> tuple[str, dict[str, Any]]:
        """A request without a seed, which this API does not take."""
        sampling = request.sampling
        if request.plain:
            raise Mistake("backend: anthropic", "has no text to continue, only chats", "use templates: large")
        if sampling.temperature > 1:
            raise Mistake("backend: anthropic", f"takes no temperature above 1, and a stage has {sampling.temperature}",
                          "lower it in the recipe")  # fmt: skip
        body: dict[str, Any] = {
            "model": self._options.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "messages": [
                {"role": turn.role, "content": turn.content} for turn in request.messages if turn.role != "system"
            ],
        }
        if system := "\n\n".join(turn.content for turn in request.messages if turn.role == "system"):
            body["system"] = system
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p  # newer models refuse it beside a temperature
        if sampling.stop:
            body["stop_sequences"] = sampling.stop
        return "/messages", self._options.filled(body)

    def read(self, answer: Any) -> Completion:
        """The text blocks of an answer, thinking blocks aside."""
        blocks, usage = answer["content"], answer["usage"]
        read = sum(count(value) for name, value in usage.items() if name in _READ)
        return completion(
            joined(blocks, "text"),
            joined(blocks, "thinking"),
            answer["stop_reason"],
            Usage(read, count(usage["output_tokens"])),
        )

    async def score(self, post: Post, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Not possible."""
        raise Mistake("backend: anthropic", "gives no log-probabilities", "use vLLM, or the transformers backend")


_READ = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
