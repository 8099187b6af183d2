"""A whole run with a model that returns the fence in every form: rows are clean, or steps are dropped with a reason."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import scripts

from cai.core.types import Completion, Request
from cai.pipeline.generate import generate
from cai.runs.folder import Run
from cai.runs.recipe import load_recipe

MARK = re.compile(r"</?\s*(?:text|texte|文本)\s+id|</text|1234567890", re.IGNORECASE)


@pytest.fixture
def echoed(recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, dict[str, Any], set[str]]:
    """A finished run, its manifest, and every fence id that was shown."""
    ids = set[str]()

    def watched(request: Request) -> Completion:
        ids.update(re.findall(r'<text id="(\w+)">', request.messages[-1].content))
        return scripts.echoing(request)

    monkeypatch.setattr(scripts, "watched", watched, raising=False)
    prompts = tmp_path / "many.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"What is thing {n}?"}) + "\n" for n in range(120)))
    recipe = recipe_of(
        "scripts:watched", templates="large", prompts=str(prompts), gates={"near_identical": "tag"},
        export={"formats": ["trl", "sft", "kto", "jsonl"]}, max_failure_share=1.0,
    )  # fmt: skip
    run = Run(tmp_path / "runs" / "a")
    return run, asyncio.run(generate(recipe, run)).as_json(), ids


def written(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pyarrow.parquet.read_table(path).to_pylist())
    return path.read_text("utf-8")


def test_no_mark_of_the_fence_is_in_any_file_of_a_run(echoed: tuple[Run, dict[str, Any], set[str]]) -> None:
    run, manifest, ids = echoed
    assert len(ids) > 200 and manifest["counts"]["pair"]["out"] > 50
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert any("export" in path.parts for path in files)
    for path in files:
        assert ids.isdisjoint(re.findall(r"(?=([0-9a-f]{10}))", written(path))), path
    for trace in run.traces():
        assert not [text for text in (trace.final, *(step.answer or "" for step in trace.steps)) if MARK.search(text)]
    for pair in run.pairs():
        assert not MARK.search(pair.chosen) and not MARK.search(pair.rejected)
    assert not [mark for path in files if "export" in path.parts for mark in MARK.findall(written(path))]


def test_every_step_is_exact_or_says_why_not_and_the_report_counts_both(
    echoed: tuple[Run, dict[str, Any], set[str]],
) -> None:
    run, manifest, _ = echoed
    cuts, kept = Counter[str](), 0
    for trace in run.traces():
        for step in trace.steps:
            for hit in step.gates:
                cuts[hit.action] += hit.gate == "fence"
                assert hit.detail
            if step.answer is not None:
                kept += 1
                assert re.fullmatch(r"(?:\w+ ){14}\w+\.", step.answer), step.answer
    assert kept > 100 and cuts["repair"] > 200 and cuts["drop"] > 20
    assert manifest["gates"]["fence"] == {action: count for action, count in cuts.items() if count}
    page = (run.path / "report.html").read_text()
    assert "<code>fence</code>" in page and "the words and the verdict contradict each other" in page


def test_a_verdict_counts_only_outside_the_fence_and_contradictions_are_tagged(
    echoed: tuple[Run, dict[str, Any], set[str]],
) -> None:
    run, manifest, _ = echoed
    steps = [step for trace in run.traces() for step in trace.steps]
    assert {step.verdict for step in steps} == {"fault", "unclear"}
    tagged = [step for step in steps if any(hit.gate == "contradiction" for hit in step.gates)]
    assert manifest["gates"]["contradiction"] == {"tag": len(tagged)} and tagged
    assert all(step.critique and "nothing to change" in step.critique.text for step in tagged)


def test_what_is_cut_is_cut_again_on_a_replay(echoed: tuple[Run, dict[str, Any], set[str]]) -> None:
    run, manifest, _ = echoed
    before = run.digest
    again = asyncio.run(generate(load_recipe(run.path / "recipe.yaml"), run)).as_json()
    assert again["calls"] != {} and run.digest == before and again["gates"] == manifest["gates"]


def test_the_thinking_that_is_kept_names_no_fence(echoed: tuple[Run, dict[str, Any], set[str]]) -> None:
    run, _, ids = echoed
    thoughts = [step.critique.thinking for trace in run.traces() for step in trace.steps if step.critique]
    assert thoughts and not [thought for thought in thoughts if any(id in (thought or "") for id in ids)]
