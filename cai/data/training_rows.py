"""Rows to learn from: a run, an export or anybody's file becomes rows of one kind, and every row is accounted for.

A run is split as its exports are. A file is split by what its rows or its name say (`test`, `validation`), else by a
digest of the prompt, so that the same conversation is never on both sides. A label below one half is turned round:
`chosen` is always the likelier side.

Left out on purpose: mending rows, and memory that does not grow with them; a training holds its rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cai.core import plugins
from cai.core.errors import Mistake
from cai.core.plugin_types import Export, Format, Rows
from cai.core.seeds import digest, file_digest, uniform
from cai.core.types import Failure, Message, Pair, Prompt
from cai.data import files, pairs
from cai.data.files import Bad
from cai.data.pairs import Opened, Preference, data_files
from cai.data.prompts import read_prompts
from cai.data.splits import make_split
from cai.runs import recipe
from cai.runs.folder import Run
from cai.runs.manifest import RowCounts
from cai.runs.recipe import PromptSource

TrainingRow = dict[str, Any]
HELD_OUT = frozenset({"test", "validation", "valid", "dev", "eval", "held_out"})
"""Names of splits that are not learned from."""
_NEEDS: Mapping[Rows, str] = {
    "messages": "prompt and completion",
    "pairs": "prompt, chosen and rejected",
    "labels": "prompt, completion and label, or pairs",
    "prompts": "prompt",
}


@dataclass(slots=True)
class TrainingRows:
    """What is learned from, what is held out, and what became of every other row."""

    rows: list[TrainingRow] = field(default_factory=list)
    held_out: list[TrainingRow] = field(default_factory=list)
    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows by the reason why they are in neither: too_long, wrong, identical, empty, tie, template_refuses."""
    examples: dict[str, str] = field(default_factory=dict)
    """For each reason the first row, and what is wrong with it."""
    constitutions: set[str] = field(default_factory=set)
    """Digests of the constitutions that the rows were made by, where they say."""

    def counts(self) -> RowCounts:
        """What became of the rows; read = used + held_out + left out."""
        return RowCounts(self.read, len(self.rows), len(self.held_out), dict(sorted(self.left_out.items())))


@dataclass(frozen=True, slots=True)
class _Bad:
    """A row that cannot be learned from."""

    reason: str
    what: str


Coming = Iterator[tuple[str, str, "TrainingRow | _Bad"]]
"""Where a row stands, the name of its split, and the row."""


def gather_training_rows(
    path: Path,
    kind: Rows,
    *,
    tokens: Callable[[TrainingRow], int],
    max_length: int,
    held_out: float = 0.1,
    seed: int = 0,
    revisions: str = "last",
    soft: bool = True,
) -> TrainingRows:
    """All rows in `path` as rows of a kind; `tokens` counts those of the longest side. Raises Mistake.

    Without `soft` the pairs of a run are taken as they are named, a revision over its draft, whatever a judge says.
    """
    found, splits = TrainingRows(), list[str]()
    for where, split, row in _coming(path, kind, revisions, soft):
        found.read += 1
        checked = row if isinstance(row, _Bad) else _checked(row, tokens, max_length)
        if isinstance(checked, _Bad):
            found.left_out[checked.reason] += 1
            found.examples.setdefault(checked.reason, f"{where}: {checked.what}")
            continue
        if made_by := checked.pop("constitution", None):
            found.constitutions.add(made_by)
        found.rows.append(checked)
        splits.append(split)
    _refuse_nothing(path, kind, found)
    _part(found, splits, held_out, seed)
    return found


def data_digest(path: Path) -> str:
    """SHA-256 over the bytes of the files that rows are read from."""
    if (path / "manifest.json").is_file() and (path / "traces.jsonl").is_file():
        return Run(path).digest
    files = [file for file in data_files(path) if file.is_file()]
    return hashlib.sha256(b"".join(bytes.fromhex(file_digest(file)) for file in files)).hexdigest()


def _refuse_nothing(path: Path, kind: Rows, found: TrainingRows) -> None:
    if found.rows:
        return
    if not found.read:
        raise Mistake(str(path), "holds no rows", f"rows need {_NEEDS[kind]}")
    why = found.examples.get("wrong") or next(iter(found.examples.values()))
    raise Mistake(str(path), f"none of {found.read} rows can be learned from: {why}", f"rows need {_NEEDS[kind]}")


def _part(found: TrainingRows, splits: list[str], share: float, seed: int) -> None:
    """Move what is held out to its own list."""
    named = {name in HELD_OUT for name in splits} == {True, False}
    everything, found.rows = found.rows, []
    for row, split in zip(everything, splits, strict=True):
        key = [(turn["role"], " ".join(turn["content"].casefold().split())) for turn in row["prompt"]]
        out = split in HELD_OUT if named else uniform("held_out", seed, digest(key)) < share
        (found.held_out if out else found.rows).append(row)
    if not found.rows:
        found.rows, found.held_out = found.held_out, []  # one conversation, and chance had it held out


def _checked(row: TrainingRow, tokens: Callable[[TrainingRow], int], max_length: int) -> TrainingRow | _Bad:
    from jinja2 import TemplateError

    answers = ["\n".join(turn["content"] for turn in row[side]) for side in answer_columns(row)]
    if not row["prompt"]:
        return _Bad("wrong", "has no prompt")
    if any(not answer.strip() for answer in answers):
        return _Bad("empty", "an answer is empty")
    if len(answers) == 2 and answers[0] == answers[1]:
        return _Bad("identical", "chosen and rejected are the same")
    try:
        count = tokens(row)
    except TemplateError as error:
        return _Bad("template_refuses", f"the chat template refuses it: {error}")
    if count > max_length:
        return _Bad("too_long", f"{count} tokens, and max_length is {max_length}")
    return row


def answer_columns(row: Mapping[str, Any]) -> list[str]:
    """The columns of a row that hold answers."""
    return [name for name in ("completion", "chosen", "rejected") if name in row]


# --- Runs -------------------------------------------------------------------------------------------------------------


def _coming(path: Path, kind: Rows, revisions: str, soft: bool) -> Coming:
    if not path.exists():
        raise Mistake(str(path), "there is no such file or folder", "check the path")
    if (path / "manifest.json").is_file() and (path / "traces.jsonl").is_file():
        return _of_run(Run(Run(path).finished), kind, revisions, soft)
    if kind in ("pairs", "labels"):
        return _of_pairs(path, kind)
    return _of_completions(path) if kind == "messages" else _of_prompts(path)


def _of_run(run: Run, kind: Rows, revisions: str, soft: bool) -> Coming:
    chosen = recipe.load_recipe(run.path / "recipe.yaml")
    split = make_split(chosen.export.test_share, chosen.seed)
    export = Export(run.traces, run.pairs, split, run.manifest.constitution.digest)
    if kind == "pairs":
        for pair in run.pairs():
            tie = pair.p_chosen == 0.5
            taken = pair if soft or tie else replace(pair, p_chosen=1.0)
            yield _name(pair), split(pair.prompt), _pair(_name(pair), taken, export.constitution)
        return
    if kind == "prompts":
        for prompt in {trace.prompt.id: trace.prompt for trace in run.traces()}.values():
            yield prompt.id, split(prompt), {"id": prompt.id, "prompt": _turns(prompt.messages)}
        return
    name = "kto" if kind == "labels" else "sft_all" if revisions == "all" else "sft"
    for part, row in plugins.find_plugin("export", name, Format).rows(export):
        columns = ("prompt", "completion", "label", "constitution")
        id = f"{row['prompt_id']}:{row['sample']}:{row['source']}"
        yield id, part, {"id": id, **{name: row[name] for name in columns if name in row}}


def _name(pair: Pair) -> str:
    return f"{pair.prompt.id}:{pair.sample}:{pair.source}"


def _pair(id: str, pair: Pair | Preference, made_by: str = "") -> TrainingRow:
    prompt = pair.prompt.messages if isinstance(pair.prompt, Prompt) else pair.prompt
    p = 1.0 if pair.p_chosen is None else pair.p_chosen
    sides = [pair.chosen, pair.rejected] if p >= 0.5 else [pair.rejected, pair.chosen]
    row: TrainingRow = {"id": id, "prompt": _turns(prompt), "p_chosen": max(p, 1 - p)}
    row |= {name: _answer(side) for name, side in zip(("chosen", "rejected"), sides, strict=True)}
    margin, weight = (getattr(pair, name, None) for name in ("margin", "weight"))
    row |= {} if margin is None else {"margin": margin if p >= 0.5 else -margin}
    row |= {} if weight is None else {"weight": weight}
    row |= {"turned": True} if p < 0.5 else {}
    return row | ({"constitution": made_by} if made_by else {})


# --- Files ------------------------------------------------------------------------------------------------------------


def _of_pairs(path: Path, kind: Rows) -> Coming:
    for file in data_files(path):
        opened = pairs.opened(file)
        labelled = kind == "labels" and not opened.format
        yield from _labelled(file, opened.split) if labelled else _preferences(opened, file, kind)


def _preferences(opened: Opened, file: Path, kind: Rows) -> Coming:
    for pair in opened.pairs:
        if isinstance(pair, Failure):
            if pair.message.endswith((", not a probability", ", not a weight")):
                raise Mistake(str(file), pair.message, "mend the row: p is in [0, 1], a weight 0 or more")
            yield pair.id, opened.split, _Bad("wrong", pair.message)
        elif pair.turns > 1:
            yield pair.where, pair.split, _Bad("wrong", "the two sides part before the last answer")
        elif kind == "pairs":
            yield pair.where, pair.split, _pair(pair.id, pair)
        elif pair.p_chosen == 0.5:
            yield pair.where, pair.split, _Bad("tie", "p is 0.5, and neither answer is the good one")
        else:
            yield from _thumbs(pair)


def _thumbs(pair: Preference) -> Coming:
    """Both answers of a pair, one good and one bad."""
    row = _pair(pair.id, pair)
    for side, label in (("chosen", True), ("rejected", False)):
        single = {"id": f"{pair.id}:{side}", "prompt": row["prompt"], "completion": row[side], "label": label}
        yield pair.where, pair.split, single


def _labelled(file: Path, split: str) -> Coming:
    for where, name, row in _completed(file, split):
        if isinstance(row, _Bad) or isinstance(row.get("label"), bool):
            yield where, name, row
        else:
            yield where, name, _Bad("wrong", f"{where} has no label that is true or false")


def _of_completions(path: Path) -> Coming:
    for file in data_files(path):
        yield from _completed(file, file.name.split(".")[0].split("-")[0])


def _completed(file: Path, split: str) -> Coming:
    """Rows with prompt and completion, or with messages that end in an answer."""
    for where, row in files.rows(file):
        try:
            if isinstance(row, Bad) or not isinstance(row, Mapping):
                raise ValueError(f"{where} {row if isinstance(row, Bad) else 'is not an object'}")
            yield where, str(row.get("split") or split), _completion(where, row)
        except (ValueError, KeyError, TypeError) as error:
            yield where, split, _Bad("wrong", str(error))


def _completion(where: str, row: Mapping[str, Any]) -> TrainingRow:
    if row.get("messages") is not None:
        turns = _listed(row["messages"])
        prompt, completion = turns[:-1], turns[-1:]
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = _listed(row["prompt"]), _listed(row["completion"], "assistant")
    else:
        raise ValueError(f"{where} has no prompt and completion; it has {', '.join(map(repr, list(row)[:8]))}")
    if not completion or any(turn["role"] != "assistant" for turn in completion):
        raise ValueError(f"{where} does not end in an answer")
    made_by = row.get("constitution")
    extra = {name: row[name] for name in ("label",) if name in row} | ({"constitution": made_by} if made_by else {})
    return {
        "id": str(row.get("id") or row.get("prompt_id") or where),
        "prompt": prompt,
        "completion": completion,
        **extra,
    }


def _listed(value: Any, role: str = "user") -> list[dict[str, str]]:
    if isinstance(value, str):
        return [{"role": role, "content": _text(value)}]
    turns = value if isinstance(value, list) else [value]
    return [{"role": str(turn["role"]), "content": _text(turn["content"])} for turn in map(_turn, turns)]


def _turn(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not {"role", "content"} <= value.keys():
        raise ValueError(f"has a {type(value).__name__} where a turn with role and content belongs")
    return value


def _text(content: Any) -> str:
    """What a turn says; of parts, as chat APIs have them, those of text. Raises ValueError."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(_text(part.get("text")) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"has a turn whose content is a {type(content).__name__}, not text")
    if any("\ud800" <= character <= "\udfff" for character in content):
        raise ValueError("has a turn that is not valid Unicode")
    return content


def _of_prompts(path: Path) -> Coming:
    for file in data_files(path):
        split = file.name.split(".")[0].split("-")[0]
        for prompt in read_prompts(PromptSource(path=str(file))):
            if isinstance(prompt, Failure):
                reason = prompt.kind if prompt.kind.startswith("duplicate") else "wrong"
                yield prompt.id, split, _Bad(reason, prompt.message)
            else:
                yield prompt.id, prompt.split or split, {"id": prompt.id, "prompt": _turns(prompt.messages)}


def _turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in messages]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def prompt_messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation that a row asks to be answered."""
    return tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])
