"""What a trainer will make of an export: every row is rendered and tokenised as TRL does it, and the damage counted.

It raises for a folder or a tokenizer that cannot be opened, never for what it finds: whether a finding is too many is
for the caller to say.

Left out on purpose: judging the text. An answer may be dull or wrong, as long as a trainer can learn from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from cai.core.errors import Mistake

Row = Mapping[str, Any]

KINDS: Mapping[str, str] = {
    "no_rows": "the split is empty, and no trainer starts on that",
    "columns": "TRL trains on prompt, chosen, rejected or on prompt, completion, label or on prompt, completion",
    "reserved": "TRL gives a meaning of its own to a column that is there beside those",
    "mixed": "texts and message lists stand side by side, and TRL takes either for the shape of all",
    "template_refuses": "the chat template refuses the conversation, and TRL stops there",
    "empty": "an answer is empty",
    "identical": "chosen and rejected are the same tokens, so there is nothing to prefer",
    "identical_when_cut": "chosen and rejected are the same tokens once cut at the maximum length",
    "prompt_fills": "the prompt alone reaches the maximum length, and TRL drops the row",
    "truncated": "an answer is cut at the maximum length, and its end is not learned",
    "prompt_not_prefix": "the prompt renders otherwise once an answer follows, so training and use differ",
    "control_tokens": "a text spells a control token of the tokenizer, and becomes one",
}
"""Every kind of finding, and what it means for training."""
FATAL = frozenset({"no_rows", "columns", "reserved", "mixed", "template_refuses"})
"""Kinds at which TRL raises or trains on something else; the others cost rows or quality."""
EXAMPLES = 5

_SHAPES = (("prompt", "chosen", "rejected"), ("prompt", "completion", "label"), ("prompt", "completion"))
_SIDES = ("chosen", "rejected", "completion")
_RESERVED = frozenset(
    {"messages", "conversations", "text", "image", "images", "tools", "chat_template_kwargs", "input_ids", "labels"}
    | {"prompt_ids", "chosen_ids", "rejected_ids", "completion_ids", "ref_chosen_logps", "ref_rejected_logps"}
)


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of transformers have it."""

    chat_template: str | None
    eos_token: str
    all_special_tokens: list[str]

    def __call__(self, text: str) -> Mapping[str, list[int]]: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, return_dict: bool, add_generation_prompt: bool
    ) -> Mapping[str, list[int]]: ...


@dataclass(frozen=True, slots=True)
class ExportFault:
    """Something that training would suffer from, in so many rows, with the prompt ids of the first of them."""

    kind: str
    rows: int
    what: str
    examples: tuple[str, ...]
    fatal: bool


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """What was found, and what was looked at."""

    rows: Mapping[str, int]
    """By split."""
    longest: int
    """Tokens of the longest conversation with its answer."""
    max_length: int
    ignored: tuple[str, ...]
    """Columns that TRL leaves alone."""
    findings: tuple[ExportFault, ...]


def check_export(folder: Path, tokenizer: str, *, max_length: int = 1024) -> ExportCheck:
    """Check the export in `folder` against a tokenizer (folder or hub id). 1024 is TRL's default. Raises Mistake."""
    splits = _load(folder)
    return examine(splits, next(iter(splits.values())).column_names, _open(tokenizer), max_length)


def examine(
    splits: Mapping[str, Iterable[Row]], columns: Sequence[str], tokenizer: Tokenizer, max_length: int
) -> ExportCheck:
    """Check rows that are at hand; they are read once and not kept."""
    tally = _Tally()
    shape = next((shape for shape in _SHAPES if set(shape) <= set(columns)), ())
    if not shape:
        tally.add("columns", ", ".join(columns))
    for name in sorted(_RESERVED & set(columns)):
        tally.add("reserved", name)
    for split, rows in splits.items():
        tally.rows[split] = 0
        for number, row in enumerate(rows):
            tally.rows[split] += 1
            kinds, longest = _look(row, shape, tokenizer, max_length) if shape else ([], 0)
            tally.longest = max(tally.longest, longest)
            for kind in kinds:
                tally.add(kind, str(row.get("prompt_id", f"{split}[{number}]")))
        if not tally.rows[split]:
            tally.add("no_rows", split)
    ignored = tuple(name for name in columns if name not in shape and name not in _RESERVED)
    return ExportCheck(dict(tally.rows), tally.longest, max_length, ignored, tally.findings())


class _Tally:
    def __init__(self) -> None:
        self.rows, self.longest = Counter[str](), 0
        self._counts, self._examples = Counter[str](), dict[str, list[str]]()

    def add(self, kind: str, example: str) -> None:
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES and example not in examples:
            examples.append(example)

    def findings(self) -> tuple[ExportFault, ...]:
        return tuple(
            ExportFault(kind, self._counts[kind], what, tuple(self._examples[kind]), kind in FATAL)
            for kind, what in KINDS.items()
            if self._counts[kind]
        )


def _look(row: Row, shape: Sequence[str], tokenizer: Tokenizer, max_length: int) -> tuple[list[str], int]:
    """The kinds of finding in one row, each once, and the tokens of its longest side."""
    from jinja2 import TemplateError

    sides = [row[name] for name in shape if name in _SIDES]
    if len({isinstance(value, str) for value in (row["prompt"], *sides)}) > 1:
        return ["mixed"], 0
    kinds = list(_wording(row, sides, tokenizer))
    try:
        prompt = _ids(tokenizer, row["prompt"], last=False)
        full = [_ids(tokenizer, row["prompt"] + side, last=True) for side in sides]
    except TemplateError:
        return [*kinds, "template_refuses"], 0
    return [*kinds, *_cut(prompt, full, max_length)], max(map(len, full))


def _wording(row: Row, sides: Sequence[object], tokenizer: Tokenizer) -> Iterator[str]:
    if not isinstance(row.get("label", True), bool):
        yield "columns"
    texts = [text for value in (row["prompt"], *sides) for text in _texts(value)]
    if any(special in text for special in tokenizer.all_special_tokens for text in texts):
        yield "control_tokens"
    if any(not "".join(_texts(side)).strip() for side in sides):
        yield "empty"


def _cut(prompt: list[int], full: list[list[int]], max_length: int) -> Iterator[str]:
    prefix = min(_shared(prompt, ids) for ids in full)
    if prefix < len(prompt):
        yield "prompt_not_prefix"
    if prefix >= max_length:
        yield "prompt_fills"
        return
    if max(map(len, full)) > max_length:
        yield "truncated"
    if len(full) == 2 and full[0][:max_length] == full[1][:max_length]:
        yield "identical" if full[0] == full[1] else "identical_when_cut"


def _shared(ids: list[int], others: list[int]) -> int:
    if others[: len(ids)] == ids:
        return len(ids)
    differ = (place for place, (one, other) in enumerate(zip(ids, others, strict=False)) if one != other)
    return next(differ, len(others))


def _texts(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [turn["content"] for turn in cast(list[dict[str, str]], value)]


def _ids(tokenizer: Tokenizer, value: Any, *, last: bool) -> list[int]:
    """Tokens as TRL makes them: `last` where the answer is there, and a text then ends in the end token."""
    if isinstance(value, str):
        return list(tokenizer(value + tokenizer.eos_token if last else value)["input_ids"])
    made = tokenizer.apply_chat_template(value, tokenize=True, return_dict=True, add_generation_prompt=not last)
    return list(made["input_ids"])


def _load(folder: Path) -> Mapping[str, Any]:
    from datasets import load_dataset

    if not (folder / "README.md").is_file():
        raise Mistake(str(folder), "holds no export", "write one with `cai export`")
    try:
        return cast(Mapping[str, Any], load_dataset(str(folder), streaming=True))
    except Exception as error:  # datasets raises whatever its readers raise; each means that this cannot be loaded
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Mistake(str(folder), f"cannot be loaded: {what}", "write the export again") from error


def _open(name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise Mistake(name, f"has no tokenizer that can be opened: {what}", "name a model folder or hub id") from error
    if not tokenizer.chat_template:
        raise Mistake(name, "its tokenizer has no chat template", "name the chat form of the model")
    return cast(Tokenizer, tokenizer)
