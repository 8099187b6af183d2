"""Asks any endpoint that speaks OpenAI's chat API: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, OpenAI ...

Left out on purpose: the Responses API, which only OpenAI has, and everything that needs a connection; this file is
read to list backends.
"""

from __future__ import annotations

from typing import Literal

from cai.backends.http.endpoint import Endpoint
from cai.core.plugin_types import Backend
from cai.core.types import Model


class Options(Endpoint):
    """What a recipe can say about an OpenAI-compatible endpoint."""

    base_url: str = "https://api.openai.com/v1"
    """Up to and including the version, such as http://localhost:8000/v1."""
    seed: bool = True
    """Send the seed. An endpoint that refuses it must do without; its answers then differ from run to run."""
    logprobs: bool = False
    """Ask for the log-probability of every generated token, and keep it."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the limit; OpenAI's reasoning models insist on the longer name."""


def open(options: Options) -> Model:
    """The model at the endpoint. Nothing is sent yet. Raises Mistake where the key is not there."""
    from cai.backends.http.openai_chat import open_chat

    return open_chat(options)


BACKEND = Backend(options=Options, open=open, about="any OpenAI-compatible endpoint, local or paid")
