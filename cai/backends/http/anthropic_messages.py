"""Anthropic's Messages API: a separate system text, content in blocks, thinking in blocks of its own.

Left out on purpose: prompt caching and tools; `extra_body` can turn on extended thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from cai.backends.http.batch_api import AnthropicBatchApi
from cai.backends.http.batches import Batches
from cai.backends.http.client import EndpointClient, Post
from cai.backends.http.completion import completion, joined_text
from cai.backends.http.connection import Connection
from cai.backends.http.endpoint import AnthropicEndpoint
from cai.core.errors import Mistake
from cai.core.types import Completion, JsonObject, Model, Request, Score, Usage
from cai.data.messages import message_dicts

VERSION = "2023-06-01"


def open_messages(options: AnthropicEndpoint) -> Model:
    """The model at the Messages API. Raises Mistake if its key is missing."""
    key = options.key("api.anthropic.com", "ANTHROPIC_API_KEY")
    headers = {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})
    connections = [Connection(options.at(url), headers, key, alone=len(options.urls) == 1) for url in options.urls]
    client = EndpointClient(options, AnthropicMessages(options), _identity(options), connections)
    if not options.batch:
        return client
    return Batches(client, AnthropicBatchApi(connections[0]), Path(options.batch), options.batch_poll)


def _identity(options: AnthropicEndpoint) -> dict[str, str]:
    identity = {"engine": "anthropic", "model": options.model, "endpoint": options.place}
    identity |= {} if options.temperature else {"temperature": "not sent"}
    return identity | ({"extra_body": to_json(options.extra_body).decode()} if options.extra_body else {})


class AnthropicMessages:
    """How requests are written and answers are read."""

    def __init__(self, options: AnthropicEndpoint) -> None:
        self._options = options

    def put(self, request: Request) -> tuple[str, JsonObject]:
        """Path and body, without a seed, which this API does not have."""
        sampling = request.sampling
        if request.plain:
            raise Mistake("backend: anthropic", "has only chats, no text completions", "use templates: large")
        sends = self._options.temperature
        if sends and sampling.temperature > 1:
            what = f"allows no temperature above 1, and a stage has {sampling.temperature}"
            raise Mistake("backend: anthropic", what, "lower it in the recipe")
        body: dict[str, Any] = {
            "model": self._options.model,
            "max_tokens": sampling.max_tokens,
            "messages": message_dicts(turn for turn in request.messages if turn.role != "system"),
        }
        if system := "\n\n".join(turn.content for turn in request.messages if turn.role == "system"):
            body["system"] = system
        if sends:
            body["temperature"] = sampling.temperature
        if sends and sampling.top_p < 1:
            body["top_p"] = sampling.top_p  # newer models refuse it together with a temperature
        if sampling.stop:
            body["stop_sequences"] = sampling.stop
        return "/messages", self._options.filled(body)

    def read(self, answer: JsonObject, usage: Usage) -> Completion:
        """The text blocks of an answer, and its thinking blocks apart."""
        blocks = answer["content"]
        thinking = joined_text([block for block in blocks if block.get("thinking")], "thinking")
        return completion(joined_text(blocks, "text"), thinking, answer["stop_reason"], usage)

    async def score(self, post: Post, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Not possible."""
        raise Mistake("backend: anthropic", "gives no log-probabilities", "use vLLM, or the transformers backend")
