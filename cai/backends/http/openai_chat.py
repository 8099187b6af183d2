"""OpenAI's chat completions API, as compatible servers have it too, and its text completions for `plain` requests.

Left out on purpose: several choices in one answer, tools, images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from cai.backends.http.batch_api import OpenAIBatchApi
from cai.backends.http.batches import Batches
from cai.backends.http.client import EndpointClient, Post
from cai.backends.http.completion import completion, joined_text
from cai.backends.http.connection import Connection
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.backends.http.errors import body_error
from cai.backends.http.prompt_logprobs import score_by_prompt
from cai.core.types import Completion, JsonObject, Model, Request, Score, Usage
from cai.data.messages import message_dicts

CHAT, TEXT = "/chat/completions", "/completions"


def open_chat(options: OpenAIEndpoint) -> Model:
    """The model at an OpenAI-compatible endpoint. Raises Mistake if its key is missing."""
    key = options.key("api.openai.com", "OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connections = [Connection(options.at(url), headers, key, alone=len(options.urls) == 1) for url in options.urls]
    client = EndpointClient(options, OpenAIChat(options), _identity(options), connections)
    if not options.batch:
        return client
    return Batches(client, OpenAIBatchApi(connections[0]), Path(options.batch), options.batch_poll)


def _identity(options: OpenAIEndpoint) -> dict[str, str]:
    identity = {"engine": "openai", "model": options.model, "endpoint": options.place}
    identity |= {"extra_body": to_json(options.extra_body).decode()} if options.extra_body else {}
    identity |= {} if options.seed else {"seed": "not sent"}
    identity |= {} if options.temperature else {"temperature": "not sent"}
    identity |= {"system": "folded"} if options.system == "fold" else {}
    return identity | ({"logprobs": "yes"} if options.logprobs else {})


class OpenAIChat:
    """How requests are written and answers are read."""

    def __init__(self, options: OpenAIEndpoint) -> None:
        self._options = options

    def put(self, request: Request) -> tuple[str, JsonObject]:
        """Defaults are sent too: otherwise the server's own apply (in vLLM the model's generation_config)."""
        options, sampling = self._options, request.sampling
        body: dict[str, Any] = {"model": options.model, options.max_tokens_field: sampling.max_tokens}
        if options.temperature:
            body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if request.plain:
            body["prompt"] = request.messages[0].content
        else:
            body["messages"] = message_dicts(request.messages)
        if options.seed:
            body["seed"] = request.seed
        if sampling.stop:
            body["stop"] = sampling.stop
        if options.logprobs:
            body["logprobs"] = 0 if request.plain else True  # a number of alternatives there, a switch in chats
        return TEXT if request.plain else CHAT, options.filled(body) if options.extra_body else body

    def read(self, answer: JsonObject, usage: Usage) -> Completion:
        """The first choice of an answer."""
        choice = answer["choices"][0]
        if choice.get("error"):
            raise body_error(self._options, choice)
        message = choice.get("message")
        if message is None:
            text, thought = joined_text(choice["text"], "text"), ""
        else:
            content = message.get("content")
            text = joined_text(content, "text") or message.get("refusal") or ""
            thought = message.get("reasoning_content") or message.get("reasoning") or ""
            thought = thought or (joined_text(content, "thinking") if isinstance(content, list) else "")
        logprobs = _logprobs(choice.get("logprobs")) if self._options.logprobs else None
        return completion(text, thought, choice.get("finish_reason"), usage, logprobs)

    async def score(self, post: Post, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """From the log-probabilities of the prompt, if the endpoint returns them."""
        return await score_by_prompt(post, self._options, request, continuations)


def _logprobs(found: Any) -> list[Any] | None:
    if not found:
        return None
    if found.get("content") is not None:
        return [token["logprob"] for token in found["content"]]
    values = found.get("token_logprobs")
    return None if values is None else list(values)
