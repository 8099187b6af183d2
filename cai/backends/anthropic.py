"""Asks Claude through Anthropic's Messages API.

Left out on purpose: seeds and log-probabilities, which that API does not have; text to continue without a chat; and
everything that needs a connection, since this file is read to list backends.
"""

from __future__ import annotations

from cai.backends.http.endpoint import Endpoint
from cai.core.plugin_types import Backend
from cai.core.types import Model


class Options(Endpoint):
    """What a recipe can say about the Messages API."""

    base_url: str = "https://api.anthropic.com/v1"
    """Up to and including the version."""


def open(options: Options) -> Model:
    """The model at the endpoint. Nothing is sent yet. Raises Mistake where the key is not there."""
    from cai.backends.http.anthropic_messages import open_messages

    return open_messages(options)


BACKEND = Backend(options=Options, open=open, about="Claude, through the Messages API")
