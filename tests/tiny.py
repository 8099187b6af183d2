"""Random language models of a few thousand weights, saved as folders: real architectures, real tokenizer, no sense.

Their fixtures are in `opened`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai.core.types import Completion, Message, Request, Sampling

CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
VOCABULARY = 259
GREEDY = Sampling(temperature=0, max_tokens=24)


def tiny_model(folder: Path, architecture: str = "llama", *, seed: int = 0, chat: str | None = CHAT) -> Path:
    """A model of `architecture` over bytes, in `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)  # two threads on two busy cores wait for each other more than they work
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**_shape(architecture), bos_token_id=1, eos_token_id=0, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        weight.data *= 3 if weight.dim() > 1 else 1  # small random weights answer everything alike
    model.save_pretrained(folder)
    _tokenizer(chat).save_pretrained(folder)
    return folder


def _shape(architecture: str) -> dict[str, Any]:
    common = {"vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 64}
    return {
        "llama": {"model_type": "llama", **common, **heads},
        "qwen2": {"model_type": "qwen2", **common, **heads},
        "gpt2": {
            "model_type": "gpt2",
            "vocab_size": VOCABULARY,
            "n_embd": 48,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 512,
        },
        "sliding": {"model_type": "mistral", **common, **heads, "sliding_window": 16},
        "mamba": {
            "model_type": "mamba",
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "state_size": 8,
        },
        "alibi": {"model_type": "bloom", "vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 2, "n_head": 4},
    }[architecture]


def _tokenizer(chat: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<|end|>", "<|start|>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: id for id, word in enumerate(words)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|start|>", unk_token="<unk>", chat_template=chat
    )


def ask(text: str, sampling: Sampling = GREEDY, *, seed: int = 0, plain: bool = False) -> Request:
    return Request((Message("user", text),), sampling, seed, plain)


async def answers(model: Any, requests: Sequence[Request]) -> list[Completion]:
    return list(await asyncio.gather(*map(model.complete, requests)))
