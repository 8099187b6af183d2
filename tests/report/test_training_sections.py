"""The report of what came after the rows: curves, the policy before and after, findings; and hostile text in all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cai.constitution.principles import load_constitution
from cai.core import plugins
from cai.pipeline.generate import generate
from cai.pipeline.policy_change import policy_change, words_kept
from cai.report import svg
from cai.report.run_page import run_page
from cai.report.training_sections import trainings
from cai.runs.files import record_as_json
from cai.runs.folder import Run

EVIL = "</script><img src=x onerror=alert(1)>\u202e<b>"


@pytest.fixture
async def done(recipe_of: Any, tmp_path: Path) -> Run:
    where = Run(tmp_path / "runs" / "r")
    await generate(recipe_of(), where)
    return where


def planted(run: Path) -> None:
    """What a training, a comparison and an audit leave, with hostile words wherever a model or a file could put them."""
    folder = run / "train" / "dpo"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"method": "dpo", "model": {"name": EVIL}}))
    rows = {"read": 12, "used": 9, "held_out": 2, "left_out": {"too_long": 1}}
    figures = {"accuracy": {"value": 0.75, "low": 0.5, "high": 0.9, "n": 12}, "said": EVIL}
    (folder / "figures.json").write_text(json.dumps({"rows": rows, "figures": figures, "seconds": 61.0}))
    steps = [{"step": n, "loss": 0.7 - 0.05 * n, "rewards/margins": None if n == 3 else 0.1 * n} for n in range(1, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    pairs = [("one two three four five six", "one two"), (EVIL, EVIL + " more")]
    facts = record_as_json(policy_change(pairs, 0)) | {"policy": "dpo", "models": {}, "n": 2, "lost": {}}
    answered = [{"id": f"p{n}", "prompt": EVIL, "before": old, "after": new} for n, (old, new) in enumerate(pairs)]
    (run / "policy.json").write_text(json.dumps(facts | {"rows": answered}))
    finding = {"probe": "length", "what": EVIL, "value": 0.9, "low": 0.8, "high": 0.95, "threshold": 0.6, "passed": False,
               "severity": "major", "n": 40, "examples": [EVIL], "note": EVIL}  # fmt: skip
    audit = {"of": "pairs", "rows": 40, "left_out": 0, "failed": 1, "findings": [finding]}
    (run / "findings.json").write_text(json.dumps({"audits": [audit]}))


async def test_trainings_policy_and_audit_have_a_section_each_and_nothing_in_them_is_markup(done: Run) -> None:
    before = run_page(done)
    assert 'id="training"' not in before
    planted(done.path)
    built = run_page(done)
    for part in ("training", "policy", "audit"):
        assert f'id="{part}"' in built
    assert "<img" not in built
    assert "\u202e" not in built
    assert "0.75 [0.5, 0.9], n = 12" in built
    assert built.count("<polyline") == 2
    assert "<del>" in built
    assert "past its threshold" in built


def test_a_training_that_was_stopped_is_not_shown_as_finished(tmp_path: Path) -> None:
    planted(tmp_path)
    (tmp_path / "train" / "dpo" / "figures.json").unlink()
    found = trainings(tmp_path)
    assert found is not None
    assert not found["rows"][0]["finished"]  # type: ignore[index]  # a list of mappings


def test_a_curve_says_its_ends_in_words() -> None:
    drawn = svg.line_chart([(1, 0.7), (2, 0.2), (3, 0.4)])
    assert "0.7 at step 1, 0.4 at step 3; from 0.2 to 0.7" in drawn
    assert drawn.count(",") >= 3


def test_a_constant_and_a_long_curve_are_drawn_too() -> None:
    assert "polyline" in svg.line_chart([(1, 0.5), (2, 0.5)])
    assert len(svg.line_chart([(n, n % 7) for n in range(50_000)])) < 10_000


def test_what_a_policy_kept_is_measured_against_strangers() -> None:
    pairs = [("bread needs water and yeast", "bread needs yeast"), ("cats sleep through daylight", "cats sleep")]
    facts = policy_change(pairs, 0)
    assert facts.kept and facts.kept.value == 1.0
    assert facts.kept_of_another and facts.kept_of_another.value == 0.0
    assert facts.words and facts.words.value == -2.0
    assert words_kept("anything", "") == 0.0
    assert (nothing := policy_change([], 0)).words and nothing.words.value is None


async def test_two_runs_are_compared_row_by_row(recipe_of: Any, tmp_path: Path) -> None:
    from cai.report.compare_page import compare_runs_page, compared

    old, new = Run(tmp_path / "runs" / "old"), Run(tmp_path / "runs" / "new")
    await generate(recipe_of(), old)
    law = tmp_path / "law.yaml"
    text = plugins.shipped("constitutions", "default.yaml").read_text("utf-8")
    law.write_text(text.replace("\n    revise: >-\n", "\n    revise: >-\n      Be kind.\n"))
    await generate(recipe_of(constitution=str(law)), new)
    planted(new.path)
    rows = compared(old, new)
    finals = [[trace.final for trace in run.traces()] for run in (old, new)]
    assert rows.both == 20
    assert rows.both - rows.same == sum(a != b for a, b in zip(*finals, strict=True)) > 0
    assert rows.parted.total() == rows.both - rows.same
    assert set(rows.parted) <= {one.id for one in load_constitution("default").principles}
    built = compare_runs_page(old, new)
    assert "changed: revise" in built
    assert "not looked at → major" in built
    assert "<img" not in built
    assert compared(old, old).same == 20
