"""The policy of PPO: a language model with a value head, and the frozen reference model. Imports torch.

Every answer is sampled with its own random generator, seeded by its prompt, so that neither the other answers of a
batch nor the number of processes change it. There is no top-k, top-p or penalty: PPO assumes samples from the policy
itself.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from cai.core.errors import Mistake
from cai.core.plugin_types import Job
from cai.train.rl.ppo_options import Options
from cai.train.trl.tokenizer import open_tokenizer
from cai.train.trl.trainer import dtype, lora, on_cpu, open_policy

SAMPLED_AT_ONCE = 64
"""Answers generated in one batch."""


@dataclass(slots=True)
class Answer:
    """One answer of the policy with its score, log-probabilities, values and advantages; tensors of T, on the CPU."""

    place: int
    """Index in the step."""
    prompt: list[int]
    tokens: list[int]
    """With the end token, where `ended`."""
    ended: bool
    text: str
    score: float | None = None
    logprobs_T: Tensor = torch.empty(0)
    reference_T: Tensor = torch.empty(0)
    """Log-probabilities by the reference model."""
    values_T: Tensor = torch.empty(0)
    entropy: float = 0.0
    advantages_T: Tensor = torch.empty(0)
    returns_T: Tensor = torch.empty(0)

    @property
    def kl(self) -> float:
        """log p - log p_ref of the whole answer, in nats."""
        return float((self.logprobs_T - self.reference_T).sum())


@dataclass(frozen=True, slots=True)
class TokenOutputs:
    """The policy's outputs for the tokens of answers."""

    logprobs_BT: Tensor
    values_BT: Tensor
    entropy_BT: Tensor


class FixedDraws(LogitsProcessor):  # type: ignore[misc]  # transformers has no types here
    """Samples each row's next token from a given uniform number: all other tokens get probability 0."""

    def __init__(self, uniforms_BT: Tensor, temperature: float) -> None:
        self._uniforms_BT, self._temperature, self._at = uniforms_BT, temperature, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        cumulative_BV = (scores.float() / self._temperature).softmax(-1).double().cumsum(-1)
        target_B1 = self._uniforms_BT[:, self._at, None] * cumulative_BV[:, -1:]
        self._at += 1
        token_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True).clamp_max(scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B1, 0.0)


class Policy:
    """The trained model, its value head, and the reference model."""

    def __init__(self, job: Job, options: Options) -> None:
        self.options = options
        self.device = torch.device("cpu" if on_cpu(options) else f"cuda:{torch.cuda.current_device()}")
        self.tokenizer = open_tokenizer(job.model)
        model = open_policy(job.model, options)
        adapter = lora(options, job)
        if adapter is None:
            self._reference = copy.deepcopy(model).eval().requires_grad_(False).to(self.device)
        else:
            from peft import get_peft_model

            self._reference, model = None, get_peft_model(model, adapter)
        self.model = model.eval().to(self.device)  # eval: no dropout
        self.head = nn.Linear(model.config.get_text_config().hidden_size, 1).to(self.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._ends = _ends(model, self.tokenizer)

    def trained(self) -> list[nn.Parameter]:
        """The trainable weights."""
        return [weight for weight in (*self.model.parameters(), *self.head.parameters()) if weight.requires_grad]

    def answers(self, prompts: Sequence[list[int]], seeds: Sequence[int], places: Sequence[int]) -> Iterator[Answer]:
        """Sample an answer to each prompt at the temperature; each has its own random seed."""
        for begin in range(0, len(prompts), SAMPLED_AT_ONCE):
            some = slice(begin, begin + SAMPLED_AT_ONCE)
            for place, prompt, row in zip(
                places[some], prompts[some], self._generate(prompts[some], seeds[some]), strict=True
            ):
                length = next((n for n, token in enumerate(row, 1) if token in self._ends), len(row))
                ended, kept = row[length - 1] in self._ends, row[:length]
                text = self.tokenizer.decode(kept[:-1] if ended else kept, skip_special_tokens=True)
                yield Answer(place, list(prompt), kept, ended, text)

    def _generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[list[int]]:
        most, longest = self.options.max_new_tokens, max(map(len, prompts))
        uniforms_BT = torch.stack([torch.rand(most, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        drawn = FixedDraws(uniforms_BT.double().to(self.device), self.options.temperature)
        ids_BP = torch.tensor([[self._pad] * (longest - len(one)) + one for one in prompts], device=self.device)
        seen_BP = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=self.device)
        with torch.no_grad(), self._autocast(), _default_generation(self.model):
            made = self.model.generate(
                input_ids=ids_BP,
                attention_mask=seen_BP,
                generation_config=GenerationConfig(
                    do_sample=False, max_new_tokens=most, eos_token_id=sorted(self._ends), pad_token_id=self._pad
                ),
                logits_processor=LogitsProcessorList([drawn]),
            )
        return list(made[:, longest:].tolist())

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def read(self, answers: Sequence[Answer]) -> tuple[TokenOutputs, Tensor]:
        """The policy's outputs for answers, and the mask of their tokens."""
        ids_BL, seen_BL, mask_BT = self._padded(answers)
        logits_BTV, hidden_BTH = self._logits(self.model, ids_BL, seen_BL, mask_BT.shape[1], hidden=True)
        logprobs_BTV = logits_BTV.log_softmax(-1)
        picked_BT = logprobs_BTV.gather(-1, ids_BL[:, -mask_BT.shape[1] :, None])[..., 0]
        with torch.no_grad():
            entropy_BT = -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)
        values_BT = self.head(hidden_BTH.float())[..., 0]
        return TokenOutputs(picked_BT, values_BT, entropy_BT), mask_BT

    def reference(self, answers: Sequence[Answer]) -> Tensor:
        """Log-probabilities by the reference model, (B, T)."""
        ids_BL, seen_BL, mask_BT = self._padded(answers)
        without = nullcontext() if self._reference is not None else self.model.disable_adapter()
        with torch.no_grad(), without:
            model = self._reference if self._reference is not None else self.model
            logits_BTV, _ = self._logits(model, ids_BL, seen_BL, mask_BT.shape[1])
            picked_BT1: Tensor = logits_BTV.log_softmax(-1).gather(-1, ids_BL[:, -mask_BT.shape[1] :, None])
        return picked_BT1[..., 0]

    def _padded(self, answers: Sequence[Answer]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids and attention mask, (B, L), and the mask of answer tokens among the last T, (B, T)."""
        left, right = max(len(one.prompt) for one in answers), max(len(one.tokens) for one in answers)
        ids, seen, mask = [], [], []
        for one in answers:
            before, after = left - len(one.prompt), right - len(one.tokens)
            ids.append([self._pad] * before + one.prompt + one.tokens + [self._pad] * after)
            seen.append([0] * before + [1] * (len(one.prompt) + len(one.tokens)) + [0] * after)
            mask.append([1] * len(one.tokens) + [0] * after)
        ids_BL, seen_BL = torch.tensor(ids, device=self.device), torch.tensor(seen, device=self.device)
        return ids_BL, seen_BL, torch.tensor(mask, device=self.device, dtype=torch.float32)

    def _logits(self, model: Any, ids_BL: Tensor, seen_BL: Tensor, last: int, *, hidden: bool = False) -> Any:
        """Logits divided by the temperature, and last hidden states, that predict each of the `last` tokens."""
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        known = inspect.signature(whole.forward).parameters
        more: dict[str, Any] = {"logits_to_keep": last + 1, "position_ids": (seen_BL.cumsum(1) - 1).clamp_min(0)}
        with self._autocast():
            out = model(
                input_ids=ids_BL,
                attention_mask=seen_BL,
                use_cache=False,
                output_hidden_states=hidden,
                **{name: value for name, value in more.items() if name in known},
            )
        logits_BTV = out.logits[:, -last - 1 : -1].float() / self.options.temperature
        return logits_BTV, out.hidden_states[-1][:, -last - 1 : -1] if hidden else None

    def _autocast(self) -> Any:
        half = dtype(self.options) is torch.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)


@contextmanager
def _default_generation(model: Any) -> Iterator[None]:
    """Disables the model's own generation settings, such as a repetition penalty."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, whole.generation_config = whole.generation_config, GenerationConfig()
    try:
        yield
    finally:
        whole.generation_config = own


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """The end tokens of an answer. Raises Mistake where there are none."""
    named = (model.generation_config.eos_token_id, tokenizer.eos_token_id)
    flat = [token for one in named for token in (one if isinstance(one, list) else [one]) if token is not None]
    if not flat:
        raise Mistake("model", "has no token that ends an answer", "set eos_token in its tokenizer")
    return frozenset(flat)
