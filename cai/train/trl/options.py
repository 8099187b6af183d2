"""Options of every training method. A method's Options adds its own and may set other defaults.

Every other field of TRL's config can be set with `trl`; its name is checked before a model is loaded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cai.core.config import Knobs


class TrainingOptions(Knobs):
    """Options of every method. A step is one update of the weights."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Passes over the training rows."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many steps; overrides `epochs`."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 4
    """Rows in one batch of one process."""
    accumulate: Annotated[int, Field(ge=1, le=65536)] = 1
    """Gradient accumulation: batches in one step. The same step in less memory."""
    max_length: Annotated[int, Field(ge=8, le=1_000_000)] = 1024
    """Maximum tokens of a row, prompt and answer; longer rows are left out and counted."""
    r: Annotated[int, Field(ge=0, le=1024)] = 16
    """Rank of the LoRA adapter on all linear layers; 0 trains every weight."""
    merge: bool = True
    """Merge the LoRA adapter into the saved weights; False saves only the adapter."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision; auto: float32 on a CPU, bfloat16 on a GPU that supports it. Trained weights stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    save_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints; None: a checkpoint is saved only on Ctrl-C."""
    log_every: Annotated[int, Field(ge=1)] = 1
    """Steps between lines of metrics.jsonl."""
    trl: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Any other field of the method's TRL config, by TRL's name."""
