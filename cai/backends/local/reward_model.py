"""A reward model one can ask: a folder in, one number for each answer out, the same alone and in any batch.

A folder is what AutoModelForSequenceClassification loads, a LoRA adapter of such a model, or an ensemble:
`ensemble.json` beside `backbone/` and one adapter folder for each member, whose shared weights are in memory once.

Ensembles are combined by mean, by the least (worst case), or by mean - k * standard deviation (Coste et al., 2023,
arXiv 2310.02743). Left out on purpose: cutting what is too long; a score of half an answer is no score of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from cai.core.errors import Mistake
from cai.core.types import Message
from cai.data.messages import answer_dicts, message_dicts

Combine = Literal["mean", "min", "mean_std"]
Row = tuple[Sequence[Message], str]
"""A prompt and one answer to it."""
ENSEMBLE = "ensemble.json"
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
"""What may be a model's id on the Hugging Face hub."""


class Scorer:
    """An open reward model; `members` of them where it is an ensemble."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        adapters: Sequence[str],
        combine: Combine,
        k: float,
        size: int,
        told: Callable[[int], None],
    ) -> None:
        self._model, self._tokenizer, self._adapters = model, tokenizer, tuple(adapters)
        self._combine, self._k, self._size, self._told = combine, k, size, told
        self.members = max(1, len(self._adapters))

    def scores(self, rows: Sequence[Row]) -> list[float]:
        """One number a row, higher is better, members combined. Raises Mistake for a row that is too long."""
        return [combine_scores(each, self._combine, self._k) for each in self.each(rows)]

    def each(self, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """What each member says of each row."""
        ids = [self.tokens(*row) for row in rows]
        self._refuse_long(ids)
        by_member = [self._member(name, ids) for name in self._adapters or (None,)]
        return list(zip(*by_member, strict=True))

    def tokens(self, prompt: Sequence[Message], answer: str) -> list[int]:
        """What the model reads: the conversation with the answer, by the chat template."""
        turns = message_dicts(prompt) + answer_dicts(answer)
        return list(self._tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"])

    @property
    def limit(self) -> int:
        """Tokens of the longest row that the model can read."""
        return int(getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)

    def _refuse_long(self, ids: Sequence[Sequence[int]]) -> None:
        for number, row in enumerate(ids, 1):
            if len(row) > self.limit:
                what = f"has {len(row)} tokens, and the reward model reads {self.limit}"
                raise Mistake(f"row {number}", what, "leave it out, or cut it before scoring")

    def _member(self, adapter: str | None, ids: Sequence[Sequence[int]]) -> list[float]:
        if adapter is not None:
            self._model.set_adapter(adapter)
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))  # like lengths together: less padding
        found = [0.0] * len(ids)
        for start in range(0, len(order), self._size):
            batch = order[start : start + self._size]
            for place, score in zip(batch, self._batch([ids[place] for place in batch]), strict=True):
                found[place] = score
            self._told(len(batch))
        return found

    def _batch(self, ids: Sequence[Sequence[int]]) -> list[float]:
        import torch

        longest = max(map(len, ids))
        pad = self._model.config.get_text_config().pad_token_id
        # right padding: positions of real tokens do not depend on the neighbours, and causal attention never sees pads
        ids_BT = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in ids], device=self._model.device)
        mask_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=self._model.device)
        with torch.inference_mode():
            return [float(score) for score in self._model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0]]


def combine_scores(scores: Sequence[float], how: Combine, k: float = 1.0) -> float:
    """One number from what the members say; the standard deviation is that of these members."""
    from statistics import fmean, pstdev

    if how == "min":
        return min(scores)
    return fmean(scores) - (k * pstdev(scores) if how == "mean_std" else 0.0)


def open_scorer(
    folder: Path,
    *,
    combine: Combine = "mean",
    k: float = 1.0,
    batch_size: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    told: Callable[[int], None] = lambda more: None,
) -> Scorer:
    """The reward model in `folder`, in float32 on a CPU. Raises Mistake for anything that is no reward model.

    `told` hears how many more rows a member has scored.
    """
    import torch

    from cai.backends.local.quiet import quiet_transformers

    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    with quiet_transformers():
        model, adapters = _opened(folder)
    tokenizer = _tokenizer(folder)
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    return Scorer(model.eval().to(name), tokenizer, adapters, combine, k, batch_size, told)


def _opened(folder: Path) -> tuple[Any, list[str]]:
    """The model, and the names of its adapters where it is an ensemble."""
    from peft import PeftModel

    if not folder.is_dir() and ((folder.parent.name and folder.parent.is_dir()) or not _HUB.fullmatch(str(folder))):
        raise Mistake(str(folder), "is no folder", "name a folder of `cai train reward`")
    if (folder / ENSEMBLE).is_file():
        members = json.loads((folder / ENSEMBLE).read_text("utf-8"))["members"]
        model = PeftModel.from_pretrained(
            _backbone(folder / "backbone", head=False), str(folder / members[0]), members[0]
        )
        for member in members[1:]:
            model.load_adapter(str(folder / member), adapter_name=member)
        return model, members
    if (folder / "adapter_config.json").is_file():
        said = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        if said.get("task_type") != "SEQ_CLS":
            raise Mistake(str(folder), "is an adapter of a language model", "name a reward model: `cai train reward`")
        return PeftModel.from_pretrained(_backbone(Path(said["base_model_name_or_path"]), head=False), str(folder)), []
    return _backbone(folder, head=True), []


def _backbone(folder: Path, *, head: bool) -> Any:
    """The sequence classifier in `folder`; with `head`, one whose head was trained and not made up on loading."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model, told = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=torch.float32, output_loading_info=True, **({} if head else {"num_labels": 1})
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:200]
        where = "" if folder.is_dir() else "is no folder here, and from the hub it "
        what = f"{where}cannot be loaded as a reward model: {what}"
        raise Mistake(str(folder), what, "name a folder of `cai train reward`") from error
    if head and told["missing_keys"]:
        raise Mistake(str(folder), "is a language model: it has no reward head", "train one with `cai train reward`")
    if model.config.num_labels != 1:
        what = f"its head has {model.config.num_labels} outputs, and a reward is one number"
        raise Mistake(str(folder), what, "name a model with num_labels = 1")
    return model


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise Mistake(str(folder), "has no tokenizer", "save the tokenizer beside the weights") from error
    if not tokenizer.chat_template:
        raise Mistake(str(folder), "its tokenizer has no chat template", "save that of the model it was trained from")
    return tokenizer
