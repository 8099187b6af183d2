"""Loads a causal language model and decides how it runs: on which device, in which precision, batched or not.

Left out on purpose: quantised loading, and several devices for one model. A server does both better: see the `openai`
backend.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai.backends.local.options import LocalOptions
from cai.backends.local.quiet import quiet_transformers
from cai.backends.local.ragged import Ragged
from cai.backends.local.sequences import Feed, SequenceRunner
from cai.backends.local.serial import Serial
from cai.backends.local.weights import Weights, find_weights, load_mistake, refuse_code, refuse_rewards
from cai.core.errors import Mistake

PREFIX_BYTES = 512 * 2**20
"""For the keys and values of finished rows: about 20,000 tokens of the embedded model."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to use."""

    rows: SequenceRunner[Any]
    tokenizer: Any
    ends: list[int]
    """The ids that end an answer, according to the model's files."""
    context: int
    """The most tokens that it reads."""
    batch: int
    identity: dict[str, str]


def load_model(options: LocalOptions) -> Loaded:
    """Find, download if necessary, load and try the model that a recipe names. Raises Mistake."""
    weights = find_weights(options.model, options.revision)
    device = _device(options.device)
    dtype = _dtype(options.dtype, device)
    model, tokenizer = _read(options.model, weights, dtype)
    try:
        model = model.to(device).eval()
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        fix = "use a smaller model, dtype: bfloat16, or device: cpu"
        raise Mistake(
            options.model, f"cannot be moved to {device}: {str(error).strip().splitlines()[0]}", fix
        ) from error
    batch = options.batch_size or (32 if device.type == "cpu" else 64)
    return Loaded(
        rows=_rows(model, batch, PREFIX_BYTES if options.reuse_prefix else 0),
        tokenizer=tokenizer,
        ends=_ends(model, tokenizer),
        context=_context(model),
        batch=batch,
        identity=_identity(options, weights, dtype),
    )


def _identity(options: LocalOptions, weights: Weights, dtype: torch.dtype) -> dict[str, str]:
    """Without device, batch size and prefix reuse, which must not change an answer."""
    identity = {"engine": "transformers", **dict(weights.identity), "dtype": str(dtype).removeprefix("torch.")}
    return identity | ({"logprobs": "kept"} if options.logprobs else {})


def _read(name: str, weights: Weights, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    refuse_rewards(Path(weights.folder))
    refuse_code(name, Path(weights.folder))
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=False)
            model, report = AutoModelForCausalLM.from_pretrained(
                weights.folder, dtype=dtype, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # damaged files: transformers, tokenizers and safetensors raise unrelated classes
        raise load_mistake(name, error) from error
    if missing := sorted(report["missing_keys"]):  # transformers fills them with random numbers
        what = f"lacks {len(missing)} of the weights that its config.json names, such as {missing[0]}"
        raise Mistake(name, what, "copy or download the model again")
    return model, tokenizer


def _device(wanted: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (wanted.startswith("cuda") and not cuda) or (wanted == "mps" and not mps):
        raise Mistake(f"device: {wanted}", "this machine, or its PyTorch, does not have it", "use device: auto")
    return torch.device(wanted)


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16; emulated, it is slower than 32 bits."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _context(model: Any) -> int:
    """The most tokens that the model reads; very many if it names no limit."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    declared = getattr(model.generation_config, "eos_token_id", None)
    ends = declared if isinstance(declared, list) else [declared]
    return [token for token in [*ends, tokenizer.eos_token_id] if token is not None]


@torch.inference_mode()
def _rows(model: Any, batch: int, prefix_bytes: int) -> SequenceRunner[Any]:
    """Batched if the model then computes the same numbers, else one row after another.

    It is tried, not looked up in a list of architectures, which would be outdated with the next transformers.
    """
    serial, attention = Serial(model), model.config._attn_implementation
    expected = _trial(serial, model)
    try:
        ragged = Ragged(model, rows=batch, prefix_bytes=prefix_bytes, memory_bytes=_memory(model.device))
        distance = float((_trial(ragged, model) - expected).norm() / expected.norm())
    except (NotImplementedError, TypeError, ValueError, AttributeError, RuntimeError):
        distance = float("inf")  # whatever failed, the model cannot be batched this way
    if distance < 0.05 and not _has_batch_dependent_rope(model):
        return ragged
    model.set_attn_implementation(attention)
    return serial


def _has_batch_dependent_rope(model: Any) -> bool:
    """Whether position embeddings depend on the longest row of a batch, and so a row's numbers on the other rows."""
    return any(kind in str(getattr(model.config, "rope_parameters", "")) for kind in ("dynamic", "longrope"))


def _trial(rows: SequenceRunner[Any], model: Any) -> Tensor:
    """Logits after a dozen tokens, computed like requests: two prompts in parts, then token by token."""
    ids = [token % model.config.get_text_config().vocab_size for token in range(11, 11 + 12 * 7, 7)]
    first, second = (rows.open(ids, new_tokens=4, reusable=0) for _ in range(2))
    rows.forward([Feed(first, ids[:-3], 1), Feed(second, ids[:-5], 0)])
    rows.forward([Feed(second, ids[-5:-1], 1), Feed(first, ids[-3:-2], 1)])
    logits = rows.forward([Feed(first, ids[-2:], 1), Feed(second, ids[-1:], 1)])
    for row in (first, second):
        rows.close(row)
    return logits.float()


def _memory(device: torch.device) -> int:
    """Bytes for keys and values: 80 % of a GPU's free memory, or a quarter of the main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return 4 * 2**30
