"""The dataset card of an export: who made the rows, what was lost on the way, how lengths differ, what to beware of.

A pure function of the manifest and the rows: the same run gives the same card. Names and titles come from other people,
so each stands in a code span, where it can neither format, link nor embed anything.

Left out on purpose: the licence, which is the publisher's to choose, and example rows, which are in the data.
"""

from __future__ import annotations

import re
import shlex
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import cast

from cai.core.plugin_types import Format
from cai.core.safe_text import safe_text
from cai.report.cards.judge import judge_card_lines
from cai.runs.manifest import Manifest, PrincipleRecord


class Lengths:
    """Words of the answers in an export, by side (`chosen`, `rejected`, `completion`); one number is kept for each."""

    def __init__(self) -> None:
        self.words: dict[str, array[int]] = {}
        self.longer = self.shorter = 0

    def add(self, row: Mapping[str, object]) -> None:
        """Count the answers of one row; a row of another shape counts nothing."""
        counts = {side: len(text.split()) for side, text in _answers(row)}
        for side, count in counts.items():
            self.words.setdefault(side, array("l")).append(count)
        if {"chosen", "rejected"} <= counts.keys():
            self.longer += counts["chosen"] > counts["rejected"]
            self.shorter += counts["chosen"] < counts["rejected"]


def dataset_card(manifest: Manifest, name: str, shape: Format, counts: Mapping[str, int], lengths: Lengths) -> str:
    """The card below its YAML header, as markdown."""
    sections = [
        _opening(manifest, name, shape, counts),
        _making(manifest),
        _funnel(manifest),
        _gates(manifest),
        _judges(manifest),
        _lengths(lengths),
        _splits(counts),
        _columns(shape),
        _limits(shape, judged=manifest.judge is not None, sampled="sample" in manifest.counts),
        _licence(),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def inert(text: object, limit: int = 200) -> str:
    """Foreign text as a one-line code span that nothing inside can close."""
    line = safe_text(" ".join(str(text).split()))[:limit] or "(empty)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _answers(row: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    if "chosen" in row and "rejected" in row:
        return [("chosen", _text(row["chosen"])), ("rejected", _text(row["rejected"]))]
    if "completion" in row:
        side = {True: "chosen", False: "rejected"}.get(cast(bool, row.get("label")), "completion")
        return [(side, _text(row["completion"]))]
    return []


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    turns = cast(list[dict[str, str]], [value] if isinstance(value, dict) else value)
    return " ".join(turn["content"] for turn in turns)


def _opening(manifest: Manifest, name: str, shape: Format, counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    lines = [
        f"# {inert(manifest.name)}, as {inert(name)}",
        f"{total:,} rows: {shape.about}" + (f", for {inert(shape.consumer)}" if shape.consumer else "") + ".",
        f"Made by `cai`: {_story(manifest)} by the principles of a constitution.",
    ]
    if not total:
        lines.append("**There are no rows.** What became of the prompts stands in the two tables below.")
    if manifest.status != "finished":
        lines.append("**The run was interrupted**: more prompts went in than came out here.")
    first = next(iter(counts))
    lines.append(f'```python\nfrom datasets import load_dataset\n\nload_dataset("THIS_FOLDER", split="{first}")\n```')
    return "\n\n".join(lines)


def _story(manifest: Manifest) -> str:
    if "sample" in manifest.counts:
        return "models answered each prompt several times, and a judge said which answers are better"
    judged = ", and a judge compared them" if manifest.judge else ""
    return f"a model drafted answers, criticised and revised them{judged},"


def _making(manifest: Manifest) -> str:
    constitution, prompts, recipe = manifest.constitution, manifest.prompts, manifest.recipe
    lines = [
        f"- constitution {inert(constitution.name)} {inert(constitution.version)},"
        f" digest {inert(constitution.digest)}, with the principles (and their weights):",
        *(f"  - {_principle(each)}" for each in constitution.principles),
        *(f"- {role}: {_identity(model)}" for role, model in manifest.models.items()),
        *(f"- {stage} template {inert(each.name)}" for stage, each in manifest.templates.items()),
        f"- prompts {inert(Path(prompts.path).name)}, digest {inert(prompts.digest)}",
        f"- seed {manifest.seed}; made with "
        + ", ".join(f"{name} {inert(version)}" for name, version in {"cai": manifest.cai, **manifest.packages}.items()),
        f"- to repeat: {inert('cai run ' + shlex.quote(Path(recipe.path).name))}, digest {inert(recipe.digest)}",
    ]
    return "## How it was made\n\n" + "\n".join(lines)


def _principle(each: PrincipleRecord) -> str:
    return inert(each.id) + (f" {inert(each.title)}" if each.title else "") + f" ({each.weight:g})"


def _identity(model: Mapping[str, str]) -> str:
    # a folder's name and not its path: where it lay on somebody's disk is nobody else's business
    values = {key: _named(value) for key, value in model.items()}
    return ", ".join(f"{key} {inert(value)}" for key, value in values.items())


def _funnel(manifest: Manifest) -> str:
    stages = [(inert(stage), each.entered, each.out, each.failed) for stage, each in manifest.counts.items()]
    table = _table(("stage", "in", "out", "failed or turned away"), stages)
    why = "\n".join(f"- {inert(kind)}: {count:,}" for kind, count in sorted(manifest.failures.items()))
    return "## What went in and what came out\n\n" + table + (f"\n\nWhy rows were lost:\n\n{why}" if why else "")


def _gates(manifest: Manifest) -> str:
    gates = sorted(manifest.gates.items())  # an interrupted run has none
    hits = [(inert(gate), action, times) for gate, seen in gates for action, times in sorted(seen.items())]
    said = _table(("gate", "action", "times"), hits) if hits else "None noticed anything."
    return "## Gates\n\n" + said


def _judges(manifest: Manifest) -> str:
    """Who judged, what the labels look like, and how often the judge is right where people know."""
    judge = manifest.judge
    if not judge:
        return ""
    who = [f"{inert(one.method)} by {inert(_named(one.model))}" for one in judge.by]
    how = f"combined by {judge.combine}; " if len(who) > 1 else ""
    orders = "both orders averaged where there is an order" if judge.orders == "both" else "asked in one order only"
    said = [f"Labels by {', '.join(who)}; {how}{judge.principles} principle(s) a pair, {orders}."]
    cards = [
        *((("These labels", judge.labels),) if judge.labels else ()),
        *((f"Measured on {inert(Path(file).name)}", figures) for file, figures in judge.gold.items()),
    ]
    for title, found in cards:
        rows = [(inert(name.strip()), value) for name, value in judge_card_lines(found)]
        said.append(f"### {title}\n\n" + _table(("what", "value, with a 95 % interval where there is one"), rows))
    if not judge.gold:
        said.append("**The judge was not measured** on pairs labelled by people: name such a file as `judge.gold`.")
    return "## The judge\n\n" + "\n\n".join(said)


def _named(model: str) -> str:
    return Path(model).name if Path(model).is_absolute() else model  # where it lay on a disk is nobody's business


def _lengths(lengths: Lengths) -> str:
    if not lengths.words:
        return ""
    medians = ", ".join(f"{side} {median(words):g}" for side, words in lengths.words.items())
    said = [f"Median words: {medians}."]
    if "chosen" in lengths.words and (pairs := len(lengths.words["chosen"])) and lengths.longer + lengths.shorter:
        longer, shorter = lengths.longer / pairs, lengths.shorter / pairs
        said.append(
            f"The chosen answer is the longer one in {longer:.1%} of the pairs and the shorter one in {shorter:.1%}: "
            f"always guessing the longer one is right {longer:.1%} of the time. The further this is from one half, the "
            "more a model can learn length in place of the principles."
        )
    return "## Lengths\n\n" + " ".join(said)


def _splits(counts: Mapping[str, int]) -> str:
    note = "Split by conversation: the same conversation, whatever its case and spacing, is never in two splits."
    return "## Splits\n\n" + _table(("split", "rows"), list(counts.items())) + "\n\n" + note


def _columns(shape: Format) -> str:
    columns = ", ".join(f"{inert(name)} ({kind})" for name, kind in shape.columns.items())
    return f"## Columns\n\n{columns}.\n\n" + (
        "`source` says what a row was made of: `revision:0>2` the draft against the second revision, `revision:2` the"
        " second revision alone, `revision:0` a draft that no critique objected to, `sample:0>3` the first sample"
        " against the fourth, which was judged better. `prompt_id` and `sample` lead to the trace in the run folder."
    )


def _limits(shape: Format, *, judged: bool, sampled: bool) -> str:
    better = "is what the judge above said" if judged else "follows from the order of revision by the models above"
    limits = [
        f"No person has judged these rows. What counts as better {better}, with all blind spots.",
        "They were sampled from those models and are off-policy for any other one.",
        "What the principles do not mention was not looked at: facts, for one, are unchecked.",
    ]
    if {"rejected", "label"} & shape.columns.keys():
        drafts = "answers" if sampled else "answers are drafts as they came and"
        limits.append(f"Rejected {drafts} may contain what the constitution objects to.")
        style = "the judge prefers a style" if sampled else "revising changes style"
        limits.append(f"Chosen and rejected differ in style wherever {style}: audit before training.")
    else:
        limits.append("No other helpful answers are among them; training on these alone can make a model evasive.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _licence() -> str:
    return (
        "## Licence\n\nNot chosen yet. Choose one that the prompts and the licence of the writing model allow, and add"
        " it to the header of this page as `license:`. Writing the export again replaces this page."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", r"\|")
