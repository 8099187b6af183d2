"""Opens the tokenizer of a model folder. Imports transformers only when called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cai.backends.local.weights import refuse_code
from cai.core.errors import CaiError, Mistake

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, with a chat template and a padding token. Raises Mistake."""
    from transformers import AutoTokenizer

    try:
        refuse_code(str(folder), folder)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except CaiError:
        raise
    except Exception as error:  # a damaged file raises one of many unrelated classes
        what = f"has no tokenizer that can be loaded: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
        raise Mistake(str(folder), what, "name a folder with a complete model, or copy it again") from error
    if not tokenizer.chat_template:
        raise Mistake(str(folder), "its tokenizer has no chat template", "name the chat version of the model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
