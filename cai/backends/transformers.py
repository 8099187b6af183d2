"""Asks a language model that runs in this process, through Hugging Face transformers: on CPU, CUDA or Apple's MPS."""

from __future__ import annotations

from cai.backends.local.options import LocalOptions
from cai.core.plugin_types import Backend
from cai.core.types import Model


def open(options: LocalOptions) -> Model:
    """Load the model, downloading it on first use. Raises Mistake."""
    from cai.backends.local.model import LocalModel  # torch is imported only when a model is opened

    return LocalModel(options)


BACKEND = Backend(
    options=LocalOptions, open=open, about="a model in this process: embedded, from a folder or from the hub"
)
