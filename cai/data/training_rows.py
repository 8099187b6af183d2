"""Training rows: a run, an export or another file becomes rows of one kind, and every row is accounted for.

A run is split as its exports are. A file is split by what its rows or its name say (`test`, `validation`), else by a
digest of the prompt, so that the same conversation is never on both sides. A pair whose label is below one half is
swapped: `chosen` is always the more likely side.

Left out on purpose: repairing rows, and memory that does not grow with them; a training holds its rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from cai.core.errors import Mistake
from cai.core.plugin_types import Rows
from cai.core.seeds import digest, file_digest, uniform
from cai.core.types import Failure, Message, Pair, Prompt, Role, Trace
from cai.data import files
from cai.data.answers import accepted_answers, labelled_answers
from cai.data.files import UnreadableRow
from cai.data.messages import MessageDict, answer_dicts, message_dicts, messages_of, parse_dicts, parse_text
from cai.data.pairs import BAD_LABEL, PairFile, Preference, data_files, open_pairs
from cai.data.prompts import read_prompts
from cai.data.splits import Split, make_split
from cai.runs.folder import Run
from cai.runs.manifest import RowCounts
from cai.runs.recipe import PromptSource, load_recipe

TrainingRow = dict[str, Any]
HELD_OUT = frozenset({"test", "validation", "valid", "dev", "eval", "held_out"})
"""Names of splits that are not trained on."""
_NEEDS: Mapping[Rows, str] = {
    "messages": "prompt and completion",
    "pairs": "prompt, chosen and rejected",
    "labels": "prompt, completion and label, or pairs",
    "prompts": "prompt",
}


@dataclass(slots=True)
class TrainingRows:
    """The rows to train on, those held out, and what became of every other row."""

    rows: list[TrainingRow] = field(default_factory=list)
    held_out: list[TrainingRow] = field(default_factory=list)
    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of rows in neither, by reason: too_long, wrong, identical, empty, tie, template_refuses."""
    examples: dict[str, str] = field(default_factory=dict)
    """For each reason the first such row, and what is wrong with it."""
    constitutions: set[str] = field(default_factory=set)
    """Digests of the constitutions that the rows were made by, where rows have one."""

    def counts(self) -> RowCounts:
        """What became of the rows; read = used + held_out + left out."""
        return RowCounts(self.read, len(self.rows), len(self.held_out), dict(sorted(self.left_out.items())))


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """A row that cannot be trained on."""

    reason: str
    what: str


ReadRows = Iterator[tuple[str, str, "TrainingRow | _LeftOut"]]
"""The place of a row, the name of its split, and the row."""


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

    Without `soft` the pairs of a run are certain: a revision is better than its draft, whatever a judge says.
    """
    found, splits = TrainingRows(), list[str]()
    for where, split, row in _read(path, kind, revisions, soft):
        found.read += 1
        checked = row if isinstance(row, _LeftOut) else _checked(row, tokens, max_length)
        if isinstance(checked, _LeftOut):
            found.left_out[checked.reason] += 1
            found.examples.setdefault(checked.reason, f"{where}: {checked.what}")
            continue
        if constitution := checked.pop("constitution", None):
            found.constitutions.add(constitution)
        found.rows.append(checked)
        splits.append(split)
    _refuse_empty(path, kind, found)
    _hold_out(found, splits, held_out, seed)
    return found


def data_digest(path: Path) -> str:
    """SHA-256 over the bytes of the files that rows are read from."""
    if (path / "manifest.json").is_file() and (path / "traces.jsonl").is_file():
        return Run(path).digest
    files = [file for file in data_files(path) if file.is_file()]
    return hashlib.sha256(b"".join(bytes.fromhex(file_digest(file)) for file in files)).hexdigest()


def _refuse_empty(path: Path, kind: Rows, found: TrainingRows) -> None:
    if found.rows:
        return
    if not found.read:
        raise Mistake(str(path), "holds no rows", f"rows need {_NEEDS[kind]}")
    why = found.examples.get("wrong") or next(iter(found.examples.values()))
    raise Mistake(str(path), f"none of {found.read} rows can be trained on: {why}", f"rows need {_NEEDS[kind]}")


def _hold_out(found: TrainingRows, splits: list[str], share: float, seed: int) -> None:
    """Move the rows that are held out to their own list."""
    named = {name in HELD_OUT for name in splits} == {True, False}
    rows, found.rows = found.rows, []
    for row, split in zip(rows, splits, strict=True):
        key = [(turn["role"], " ".join(turn["content"].casefold().split())) for turn in row["prompt"]]
        out = split in HELD_OUT if named else uniform("held_out", seed, digest(key)) < share
        (found.held_out if out else found.rows).append(row)
    if not found.rows:
        found.rows, found.held_out = found.held_out, []  # a single conversation, and the draw held it out


def _checked(row: TrainingRow, tokens: Callable[[TrainingRow], int], max_length: int) -> TrainingRow | _LeftOut:
    from jinja2 import TemplateError

    answers = ["\n".join(turn["content"] for turn in row[side]) for side in answer_columns(row)]
    if not row["prompt"]:
        return _LeftOut("wrong", "has no prompt")
    if any(not answer.strip() for answer in answers):
        return _LeftOut("empty", "an answer is empty")
    if len(answers) == 2 and answers[0] == answers[1]:
        return _LeftOut("identical", "chosen and rejected are the same")
    try:
        count = tokens(row)
    except TemplateError as error:
        return _LeftOut("template_refuses", f"the chat template refuses it: {error}")
    if count > max_length:
        return _LeftOut("too_long", f"{count} tokens, and max_length is {max_length}")
    return row


def answer_columns(row: Mapping[str, object]) -> list[str]:
    """The columns of a row that contain answers."""
    return [name for name in ("completion", "chosen", "rejected") if name in row]


# --- Runs -------------------------------------------------------------------------------------------------------------


def _read(path: Path, kind: Rows, revisions: str, soft: bool) -> ReadRows:
    if not path.exists():
        raise Mistake(str(path), "there is no such file or folder", "check the path")
    if (path / "manifest.json").is_file() and (path / "traces.jsonl").is_file():
        return _of_run(Run(Run(path).finished), kind, revisions, soft)
    if kind in ("pairs", "labels"):
        return _of_pair_files(path, kind)
    return _of_completion_files(path) if kind == "messages" else _of_prompt_files(path)


def _of_run(run: Run, kind: Rows, revisions: str, soft: bool) -> ReadRows:
    recipe = load_recipe(run.path / "recipe.yaml")
    split = make_split(recipe.export.test_share, recipe.seed)
    constitution = run.manifest.constitution.digest
    match kind:
        case "pairs":
            return _run_pairs(run, split, constitution, soft)
        case "labels":
            return _run_labels(run, split, constitution)
        case "messages":
            return _run_completions(run, split, constitution, revisions)
        case "prompts":
            return _run_prompts(run, split)


def _run_pairs(run: Run, split: Split, constitution: str, soft: bool) -> ReadRows:
    for pair in run.pairs():
        labelled = pair if soft or pair.p_chosen == 0.5 else replace(pair, p_chosen=1.0)
        id = _row_id(pair, pair.source)
        yield id, split(pair.prompt), _pair_row(id, labelled, constitution)


def _run_labels(run: Run, split: Split, constitution: str) -> ReadRows:
    for name, answer in labelled_answers(run.pairs(), split):
        id = _row_id(answer.pair, answer.pair.source)
        row = _completion_row(id, answer.pair.prompt, answer.text, constitution)
        yield id, name, row | {"label": answer.good}


def _run_completions(run: Run, split: Split, constitution: str, revisions: str) -> ReadRows:
    for trace in run.traces():
        answers = accepted_answers(trace)
        for answer in answers if revisions == "all" else answers[-1:]:
            id = _row_id(trace, answer.source)
            yield id, split(trace.prompt), _completion_row(id, trace.prompt, answer.text, constitution)


def _run_prompts(run: Run, split: Split) -> ReadRows:
    for prompt in {trace.prompt.id: trace.prompt for trace in run.traces()}.values():
        yield prompt.id, split(prompt), {"id": prompt.id, "prompt": message_dicts(prompt.messages)}


def _row_id(row: Trace | Pair, source: str) -> str:
    return f"{row.prompt.id}:{row.sample}:{source}"


def _completion_row(id: str, prompt: Prompt, answer: str, constitution: str) -> TrainingRow:
    return {
        "id": id,
        "prompt": message_dicts(prompt.messages),
        "completion": answer_dicts(answer),
        "constitution": constitution,
    }


def _pair_row(id: str, pair: Pair | Preference, constitution: str = "") -> TrainingRow:
    prompt = pair.prompt.messages if isinstance(pair.prompt, Prompt) else pair.prompt
    p = 1.0 if pair.p_chosen is None else pair.p_chosen
    sides = [pair.chosen, pair.rejected] if p >= 0.5 else [pair.rejected, pair.chosen]
    row: TrainingRow = {"id": id, "prompt": message_dicts(prompt), "p_chosen": max(p, 1 - p)}
    row |= {name: answer_dicts(side) for name, side in zip(("chosen", "rejected"), sides, strict=True)}
    margin, weight = (getattr(pair, name, None) for name in ("margin", "weight"))
    row |= {} if margin is None else {"margin": margin if p >= 0.5 else -margin}
    row |= {} if weight is None else {"weight": weight}
    row |= {"turned": True} if p < 0.5 else {}
    return row | ({"constitution": constitution} if constitution else {})


# --- Files ------------------------------------------------------------------------------------------------------------


def _of_pair_files(path: Path, kind: Rows) -> ReadRows:
    for file in data_files(path):
        pairs = open_pairs(file)
        labelled = kind == "labels" and not pairs.format
        yield from _labelled(file, pairs.split) if labelled else _preferences(pairs, kind)


def _preferences(file: PairFile, kind: Rows) -> ReadRows:
    for pair in file.pairs:
        if isinstance(pair, Failure):
            if pair.kind == BAD_LABEL:
                raise Mistake(str(file.path), pair.message, "fix the row: p is in [0, 1], a weight 0 or more")
            yield pair.id, file.split, _LeftOut("wrong", pair.message)
        elif pair.turns > 1:
            yield pair.where, pair.split, _LeftOut("wrong", "the two sides differ before the last answer")
        elif kind == "pairs":
            yield pair.where, pair.split, _pair_row(pair.id, pair)
        elif pair.p_chosen == 0.5:
            yield pair.where, pair.split, _LeftOut("tie", "p is 0.5, and neither answer is the good one")
        else:
            yield from _both_labels(pair)


def _both_labels(pair: Preference) -> ReadRows:
    """Both answers of a pair, one good and one bad."""
    row = _pair_row(pair.id, pair)
    for side, label in (("chosen", True), ("rejected", False)):
        answer = {"id": f"{pair.id}:{side}", "prompt": row["prompt"], "completion": row[side], "label": label}
        yield pair.where, pair.split, answer


def _labelled(file: Path, split: str) -> ReadRows:
    for where, name, row in _completions(file, split):
        if isinstance(row, _LeftOut) or isinstance(row.get("label"), bool):
            yield where, name, row
        else:
            yield where, name, _LeftOut("wrong", f"{where} has no label that is true or false")


def _of_completion_files(path: Path) -> ReadRows:
    for file in data_files(path):
        yield from _completions(file, file.name.split(".")[0].split("-")[0])


def _completions(file: Path, split: str) -> ReadRows:
    """Rows with prompt and completion, or with messages that end in an answer."""
    for where, row in files.rows(file):
        try:
            if isinstance(row, UnreadableRow) or not isinstance(row, Mapping):
                raise ValueError(f"{where} {row if isinstance(row, UnreadableRow) else 'is not an object'}")
            yield where, str(row.get("split") or split), _completion(where, row)
        except (ValueError, KeyError, TypeError) as error:
            yield where, split, _LeftOut("wrong", str(error))


def _completion(where: str, row: Mapping[str, Any]) -> TrainingRow:
    if row.get("messages") is not None:
        turns = _parsed(row["messages"])
        prompt, completion = turns[:-1], turns[-1:]
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = _parsed(row["prompt"]), _parsed(row["completion"], "assistant")
    else:
        raise ValueError(f"{where} has no prompt and completion; it has {', '.join(map(repr, list(row)[:8]))}")
    if not completion or any(turn["role"] != "assistant" for turn in completion):
        raise ValueError(f"{where} does not end in an answer")
    constitution = row.get("constitution")
    extra = {"label": row["label"]} if "label" in row else {}
    extra |= {"constitution": constitution} if constitution else {}
    return {
        "id": str(row.get("id") or row.get("prompt_id") or where),
        "prompt": prompt,
        "completion": completion,
        **extra,
    }


def _parsed(value: object, role: Role = "user") -> list[MessageDict]:
    """A conversation of a file; text alone is one message of `role`. Raises ValueError."""
    if isinstance(value, str):
        return message_dicts([Message(role, parse_text(value, f"the {role} text"))])
    return parse_dicts(value)


def _of_prompt_files(path: Path) -> ReadRows:
    for file in data_files(path):
        split = file.name.split(".")[0].split("-")[0]
        for prompt in read_prompts(PromptSource(path=str(file))):
            if isinstance(prompt, Failure):
                reason = prompt.kind if prompt.kind.startswith("duplicate") else "wrong"
                yield prompt.id, split, _LeftOut(reason, prompt.message)
            else:
                yield prompt.id, prompt.split or split, {"id": prompt.id, "prompt": message_dicts(prompt.messages)}


def prompt_messages(row: Mapping[str, object]) -> tuple[Message, ...]:
    """The conversation of a row."""
    return messages_of(cast(list[MessageDict], row["prompt"]))
