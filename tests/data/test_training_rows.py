"""Training rows of a run: made from its traces and pairs, and the same rows as its exports have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted_run import DIGEST, pair, plant, prompt, trace

from cai.core import plugins
from cai.core.plugin_types import Export, Format
from cai.core.types import Step
from cai.data.splits import make_split
from cai.data.training_rows import gather_training_rows
from cai.runs.folder import Run

RECIPE = """
writer: {backend: scripted, model: scripts:plain}
constitution: default
prompts: {path: everyday}
templates: small
seed: 7
export: {test_share: 0.4}
"""


def planted(path: Path) -> Run:
    """Traces with several, no and rejected revisions and a clean draft; pairs with labels on both sides of a tie."""
    asked = [prompt(f"p/{number}", split="test" if number == 3 else None) for number in range(12)]
    traces = [trace(each, "a long draft", "short", None, "shorter") for each in asked[:8]]
    clean = Step(0, "brief", verdict="clean")
    traces += [trace(asked[8], "draft"), trace(asked[9], "draft", None)]
    traces += [replace(trace(asked[10], "fine draft"), steps=(clean, replace(clean, round=1)))]
    labels = (1.0, 0.9, 0.5, 0.3, 0.7)
    pairs = [
        replace(pair(each, f"better {number}", f"worse {number}", sample), p_chosen=labels[(number + sample) % 5])
        for number, each in enumerate(asked)
        for sample in range(3)
    ]
    (path / "recipe.yaml").parent.mkdir(parents=True)
    (path / "recipe.yaml").write_text(RECIPE)
    return plant(path, traces, pairs)


def learned(run: Run, kind: Any, **changed: Any) -> list[Any]:
    found = gather_training_rows(run.path, kind, tokens=lambda row: 1, max_length=9, **changed)
    assert found.constitutions == ({DIGEST} if kind != "prompts" else set())
    return [found.rows, found.held_out]


def exported(run: Run, name: str, *columns: str) -> list[Any]:
    split = make_split(0.4, 7)
    rows = plugins.find_plugin("export", name, Format).rows(Export(run.traces, run.pairs, split, DIGEST))
    parts: dict[str, list[Any]] = {"train": [], "test": []}
    for part, row in rows:
        id = f"{row['prompt_id']}:{row['sample']}:{row['source']}"
        parts[part].append({"id": id, **{column: row[column] for column in columns}})
    assert parts["train"] and parts["test"]
    return [parts["train"], parts["test"]]


@pytest.mark.parametrize(("revisions", "format"), [("last", "sft"), ("all", "sft_all")])
def test_completions_of_a_run_are_the_rows_of_its_export(tmp_path: Path, revisions: str, format: str) -> None:
    run = planted(tmp_path / "run")
    assert learned(run, "messages", revisions=revisions) == exported(run, format, "prompt", "completion")


def test_labels_of_a_run_are_the_rows_of_its_export_in_its_order(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    assert learned(run, "labels") == exported(run, "kto", "prompt", "completion", "label")


def test_pairs_of_a_run_are_the_rows_of_its_export_with_the_likelier_side_chosen(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    expected = exported(run, "trl", "prompt", "p_chosen", "chosen", "rejected")
    for row in (row for part in expected for row in part if row["p_chosen"] < 0.5):
        row |= {"chosen": row["rejected"], "rejected": row["chosen"], "p_chosen": 1 - row["p_chosen"], "turned": True}
    assert learned(run, "pairs") == expected
