"""Converts the rows of a job to the data sets that TRL's trainers take. The rows were checked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from cai.core.errors import Mistake
from cai.core.plugin_types import Job
from cai.core.seeds import digest
from cai.core.types import JsonObject

Row = Mapping[str, Any]


def without_ties(rows: Sequence[Row]) -> list[Row]:
    """The rows whose label prefers one side."""
    return [row for row in rows if row["p_chosen"] != 0.5]


def preferences(rows: Sequence[Row], *, soft: bool) -> list[JsonObject]:
    """prompt, chosen and rejected; with `soft` also p and weight, scaled to mean 1."""
    kept = rows if soft else without_ties(rows)
    mean = fmean(row.get("weight", 1.0) for row in kept) if kept else 1.0
    if not mean:
        raise Mistake("weight", "is 0 in every row, so there is nothing to learn", "give some rows a weight above 0")
    labels = [{"p": row["p_chosen"], "weight": row.get("weight", 1.0) / mean} if soft else {} for row in kept]
    return [_columns(row, "prompt", "chosen", "rejected") | label for row, label in zip(kept, labels, strict=True)]


def completion_rows(rows: Sequence[Row]) -> list[JsonObject]:
    """prompt and completion."""
    return [_columns(row, "prompt", "completion") for row in rows]


def labelled_rows(rows: Sequence[Row], seed: int) -> list[JsonObject]:
    """prompt, completion and label, shuffled by digest."""
    order = sorted(rows, key=lambda row: digest("kto", seed, row["id"], row["label"], row["completion"]))
    return [_columns(row, "prompt", "completion", "label") for row in order]


def _columns(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def datasets(job: Job, rows: Sequence[Row], held_out: Sequence[Row]) -> JsonObject:
    """`train_dataset` and, where there are rows for it, `eval_dataset`. Raises Mistake where nothing is left."""
    from datasets import Dataset

    if not rows:
        raise Mistake(str(job.out), "no row is left to train on: all are ties", "label with more than p = 0.5")
    found = {"train_dataset": Dataset.from_list(list(rows))}
    return found | ({"eval_dataset": Dataset.from_list(list(held_out))} if held_out else {})
