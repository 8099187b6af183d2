"""Asks Claude through Anthropic's Messages API, which has no seeds, no log-probabilities and no plain completions."""

from __future__ import annotations

from cai.backends.http.endpoint import AnthropicEndpoint
from cai.core.plugin_types import Backend
from cai.core.types import Model


def open(options: AnthropicEndpoint) -> Model:
    """The model at the endpoint. Nothing is sent yet. Raises Mistake if the key is missing."""
    from cai.backends.http.anthropic_messages import open_messages  # aiohttp is imported only when a model is opened

    return open_messages(options)


BACKEND = Backend(options=AnthropicEndpoint, open=open, about="Claude, through the Messages API")
