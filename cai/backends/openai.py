"""Asks any endpoint that speaks OpenAI's chat API: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, OpenAI ...

Left out on purpose: the Responses API, which only OpenAI has.
"""

from __future__ import annotations

from cai.backends.http.endpoint import OpenAIEndpoint
from cai.core.plugin_types import Backend
from cai.core.types import Model


def open(options: OpenAIEndpoint) -> Model:
    """The model at the endpoint. Nothing is sent yet. Raises Mistake if the key is missing."""
    from cai.backends.http.openai_chat import open_chat  # aiohttp is imported only when a model is opened

    return open_chat(options)


BACKEND = Backend(options=OpenAIEndpoint, open=open, about="any OpenAI-compatible endpoint, local or paid")
