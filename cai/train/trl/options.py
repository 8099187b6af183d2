"""What a person can set about every training; a method's Options adds its own and may choose other defaults.

Left out on purpose: the hundred other knobs of TRL's configs. They go through `trl`, checked by name before anything
is loaded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cai.core.config import Knobs


class TrainingOptions(Knobs):
    """Options of any method. A step is one change of the weights."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often each row is learned from."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after so many steps, whatever `epochs` says."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 4
    """Rows that one process computes at a time."""
    accumulate: Annotated[int, Field(ge=1, le=65536)] = 1
    """Batches that make one step: the same step in less memory."""
    max_length: Annotated[int, Field(ge=8, le=1_000_000)] = 1024
    """Tokens of a row, prompt and answer; longer rows are left out and counted."""
    r: Annotated[int, Field(ge=0, le=1024)] = 16
    """Rank of the LoRA adapter on all linear layers; 0 trains every weight."""
    merge: bool = True
    """Save LoRA folded into the weights, a model like any other; False saves the adapter alone."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What is computed in; auto: float32 on a CPU, bfloat16 on a GPU that has it. Trained weights stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    save_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints; None: only where Ctrl-C stops it."""
    log_every: Annotated[int, Field(ge=1)] = 1
    """Steps between lines of metrics.jsonl."""
    trl: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Any other field of TRL's config of the method, by its own name."""
