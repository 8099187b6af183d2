"""Loads a causal language model and decides how it is run: on which device, in which precision, in a batch or not.

Left out on purpose: quantised loading, and several devices for one model. A server does both better, and any server
is reached through the endpoint backends.
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

STORE_BYTES = 512 * 2**20
"""For the keys and values of finished rows: about 20,000 tokens of the embedded model."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be asked."""

    rows: SequenceRunner
    tokenizer: Any
    ends: list[int]
    """The ids that it declares to end an answer."""
    context: int
    """The most tokens that it reads."""
    batch: int
    identity: dict[str, str]


def load_model(options: LocalOptions) -> Loaded:
    """Find, fetch if need be, load and try the model that a recipe names. Raises Mistake."""
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
        rows=_rows(model, batch, STORE_BYTES if options.reuse_prefix else 0),
        tokenizer=tokenizer,
        ends=_ends(model, tokenizer),
        context=_context(model),
        batch=batch,
        identity=_identity(options, weights, dtype),
    )


def _identity(options: LocalOptions, weights: Weights, dtype: torch.dtype) -> dict[str, str]:
    """Not in it: device, batch size and prefix reuse. They are not meant to choose an answer."""
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
        raise Mistake(f"device: {wanted}", "this machine (or its PyTorch) has none", "use device: auto")
    return torch.device(wanted)


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulated, it is slower than 32 bits."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _context(model: Any) -> int:
    """Most tokens the model reads; a model that names no limit has none."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    declared = getattr(model.generation_config, "eos_token_id", None)
    ends = declared if isinstance(declared, list) else [declared]
    return [token for token in [*ends, tokenizer.eos_token_id] if token is not None]


@torch.inference_mode()
def _rows(model: Any, batch: int, store_bytes: int) -> SequenceRunner:
    """The batched way where the model gives the same numbers that way, else one row after another.

    Found out by trying, not by a list of architectures: the list would be old by the next release of transformers.
    """
    serial, attention = Serial(model), model.config._attn_implementation
    expected = _trial(serial, model)
    try:
        ragged = Ragged(model, rows=batch, store_bytes=store_bytes, memory_bytes=_memory(model.device))
        distance = float((_trial(ragged, model) - expected).norm() / expected.norm())
    except (NotImplementedError, TypeError, ValueError, AttributeError, RuntimeError):
        distance = float("inf")  # whatever it stumbled over, it is not made for the batched way
    if distance < 0.05 and not _looks_around(model):
        return ragged
    model.set_attn_implementation(attention)
    return serial


def _looks_around(model: Any) -> bool:
    """Whether position embeddings follow the longest row of a batch, and a row's numbers so depend on its company."""
    return any(kind in str(getattr(model.config, "rope_parameters", "")) for kind in ("dynamic", "longrope"))


def _trial(rows: SequenceRunner, model: Any) -> Tensor:
    """Logits after a dozen tokens, computed as requests are: two prompts in parts, then token by token."""
    ids = [token % model.config.get_text_config().vocab_size for token in range(11, 11 + 12 * 7, 7)]
    first, second = (rows.open(ids, room=4, reusable=0) for _ in range(2))
    rows.forward([Feed(first, ids[:-3], 1), Feed(second, ids[:-5], 0)])
    rows.forward([Feed(second, ids[-5:-1], 1), Feed(first, ids[-3:-2], 1)])
    logits = rows.forward([Feed(first, ids[-2:], 1), Feed(second, ids[-1:], 1)])
    for row in (first, second):
        rows.close(row)
    return logits.float()


def _memory(device: torch.device) -> int:
    """Bytes for keys and values: most of what a GPU has left, a quarter of a computer's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return 4 * 2**30
