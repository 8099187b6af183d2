"""A language model in this process: loads it, and answers one request at a time from an engine that batches.

Left out on purpose: quantised loading and several devices for one model; a server does that better, and any server is
reached through the endpoint backends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cai.backends._engine import Engine, Job, Rows
from cai.backends._ragged import Feed, Ragged
from cai.backends._serial import Serial
from cai.backends._text import Rendered, Text
from cai.backends._thinking import split_thinking
from cai.backends._weights import Weights, locate, quiet_transformers
from cai.backends.transformers import Options
from cai.errors import Mistake, Permanent
from cai.types import Completion, Request, Score, Usage

STORE_BYTES = 512 * 2**20
"""For the keys and values of finished rows: about 20,000 tokens of the embedded model."""


class LocalModel:
    """`cai.types.Model` over a transformers model."""

    def __init__(self, options: Options) -> None:
        weights = locate(options.model, options.revision)
        self._device = _device(options.device)
        self._dtype = _dtype(options.dtype, self._device)
        self._logprobs = options.logprobs
        self._identity = _identity(options, weights, self._dtype)
        model, tokenizer = _load(options.model, weights, self._device, self._dtype)
        self._text = Text(tokenizer, options.model)
        self._context = _context(model)
        self._batch = options.batch_size or (32 if self._device.type == "cpu" else 64)
        ends = self._text.ends(_declared_ends(model, tokenizer))
        self._engine = Engine(_rows(model, self._batch, options.reuse_prefix), ends=ends, batch=self._batch)
        self._ends = ends

    @property
    def identity(self) -> Mapping[str, str]:
        """Engine, model, digest or commit of its weights, and precision."""
        return self._identity

    @property
    def concurrency(self) -> int:
        """Half a batch more than runs at once, so that a row that ends is replaced in the next step."""
        return self._batch + self._batch // 2

    async def complete(self, request: Request) -> Completion:
        """One answer. Raises Permanent when the prompt leaves no room for one."""
        prompt = self._text.render(request)
        output = await self._run(self._generation(prompt, request))
        text = self._text.decode([token for token in output.ids if token not in self._ends])
        for stop in request.sampling.stop:
            text = text.partition(stop)[0]
        text, thinking = split_thinking("<think>" + text if prompt.in_thought else text)
        return Completion(
            text,
            thinking,
            output.finish,
            Usage(len(prompt.ids), len(output.ids)),
            output.logprobs if self._logprobs else None,
        )

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probability of each continuation after the request's messages, which are computed once."""
        prompt = self._text.render(request)
        jobs = []
        for text in continuations:
            added = self._text.continuation(prompt, text)
            if not added:
                raise Permanent("empty_continuation", "there is nothing to score")
            self._check_length(len(prompt.ids) + len(added))
            jobs.append(Job((*prompt.ids, *added), scored=len(added)))
        outputs = await asyncio.gather(*map(self._run, jobs))
        return tuple(Score(sum(output.logprobs), len(output.ids)) for output in outputs)

    def status(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        """Stop the engine and let go of the model."""
        await asyncio.to_thread(self._engine.close)

    def _generation(self, prompt: Rendered, request: Request) -> Job:
        self._check_length(len(prompt.ids) + 1)
        room = self._context - len(prompt.ids)
        sampling = request.sampling
        if sampling.max_tokens > room:
            sampling = type(sampling)(sampling.temperature, sampling.top_p, room, sampling.stop)
        return Job(prompt.ids, sampling, request.seed, is_stop=self._is_stop(sampling.stop))

    def _is_stop(self, stops: Sequence[str]) -> Any:
        if not stops:
            return None
        # a token is at least one byte, so a stop text cannot reach further back than this
        window = max(len(stop.encode()) for stop in stops) + 4

        def is_stop(ids: Sequence[int]) -> bool:
            text = self._text.decode(ids[-window:])
            return any(stop in text for stop in stops)

        return is_stop

    def _check_length(self, length: int) -> None:
        if length > self._context:
            raise Permanent(
                "context_too_long", f"{length} tokens, and the model reads {self._context}; it is not cut short"
            )

    async def _run(self, job: Job) -> Any:
        self._engine.submit(job)
        # cancelling the waiter cancels the job's future, which frees its row
        return await asyncio.wrap_future(job.future)


def _identity(options: Options, weights: Weights, dtype: torch.dtype) -> dict[str, str]:
    """Device and batch size are not in it: they do not choose the answer."""
    identity = {"engine": "transformers", **dict(weights.identity), "dtype": str(dtype).removeprefix("torch.")}
    return identity | ({"logprobs": "kept"} if options.logprobs else {})


def _load(name: str, weights: Weights, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(weights.source, revision=weights.revision)
            model = AutoModelForCausalLM.from_pretrained(weights.source, revision=weights.revision, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Mistake(name, f"cannot be loaded: {first[:300]}", "name a causal language model") from error
    return model.to(device).eval(), tokenizer


def _device(wanted: str) -> torch.device:
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    return torch.bfloat16 if _has_bfloat16(device) else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulated, it is slower than 32 bits."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _context(model: Any) -> int:
    """Most tokens the model reads; a model that names no limit has none."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


def _declared_ends(model: Any, tokenizer: Any) -> list[int]:
    declared = model.generation_config.eos_token_id
    ends = declared if isinstance(declared, list) else [declared]
    return [token for token in [*ends, tokenizer.eos_token_id] if token is not None]


@torch.inference_mode()
def _rows(model: Any, batch: int, reuse: bool) -> Rows:
    """The batched way where the model agrees with it, else one row after another."""
    ids = [token % model.config.get_text_config().vocab_size for token in range(11, 11 + 12 * 7, 7)]
    expected = _last_logits(Serial(model), ids)
    fallback = model.config._attn_implementation
    try:
        ragged = Ragged(model, rows=batch, store_bytes=STORE_BYTES if reuse else 0, memory_bytes=_memory(model.device))
        if _scales_positions(model) or _distance(_last_logits(ragged, ids), expected) > 0.05:
            raise NotImplementedError
    except (NotImplementedError, TypeError, ValueError, AttributeError, RuntimeError):
        model.set_attn_implementation(fallback)
        return Serial(model)
    return ragged


def _scales_positions(model: Any) -> bool:
    """Whether position embeddings depend on the longest row of the batch, and a row's numbers on its company."""
    return any(kind in str(getattr(model.config, "rope_parameters", "")) for kind in ("dynamic", "longrope"))


def _last_logits(rows: Rows, ids: list[int]) -> torch.Tensor:
    """Logits after `ids`, computed as two prompts and a step, the way requests are."""
    first, second = (rows.open(ids, room=4, reusable=0) for _ in range(2))
    rows.forward([Feed(first, ids[:-3], 1), Feed(second, ids[:-5], 0)])
    rows.forward([Feed(second, ids[-5:-1], 1), Feed(first, ids[-3:-2], 1)])
    logits = rows.forward([Feed(first, ids[-2:], 1), Feed(second, ids[-1:], 1)])
    for row in (first, second):
        rows.close(row)
    return logits.float()


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def _memory(device: torch.device) -> int:
    """Bytes for keys and values: most of what a GPU has left, a quarter of a computer's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return 4 * 2**30
