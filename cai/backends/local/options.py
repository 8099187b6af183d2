"""The options of the `transformers` backend. They are read to list backends, so nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cai.core.config import Knobs


class LocalOptions(Knobs):
    """The options of a model in this process."""

    model: str = "smollm2-135m-instruct"
    """A known name, a local folder, a local GGUF file, or an id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """auto: CUDA, else MPS, else CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 if the hardware multiplies it, else float32."""
    batch_size: int | None = Field(None, ge=1)
    """Answers generated at once; lowered automatically when memory runs out. None: 32 on a CPU, 64 elsewhere."""
    reuse_prefix: bool = True
    """Reuse the keys and values of a common prefix instead of computing it again. It changes no answer on a CPU."""
    logprobs: bool = False
    """Keep the log-probability of every generated token."""
