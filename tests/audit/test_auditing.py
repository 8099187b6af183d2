"""`cai audit`: what it gathers from files and runs, what it prints and keeps, and when it stops a pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from planted_run import pair, plant, prompt, trace
from process import cai

from cai.audit.subjects import audit
from cai.audit.subjects.audit import audit_pairs, audit_reward, probe_options
from cai.core import plugins
from cai.core.errors import Mistake
from cai.core.plugin_types import Finding
from cai.core.types import Verdict
from cai.runs.findings import Audit, write_findings


def pairs_file(path: Path, rows: list[tuple[str, str, str]], **more: object) -> Path:
    path.write_text(
        "".join(
            json.dumps({"id": f"r{n}", "prompt": asked, "chosen": chosen, "rejected": rejected} | more) + "\n"
            for n, (asked, chosen, rejected) in enumerate(rows)
        )
    )
    return path


def long_chosen(count: int) -> list[tuple[str, str, str]]:
    return [(f"What is thing {n}?", f"Thing {n} is a long story of many words.", f"It is {n}.") for n in range(count)]


def of(audit: Audit, what: str) -> Finding:
    (found,) = (found for found in audit.findings if found.what == what)
    return found


def audited(path: Path, *overrides: str) -> Audit:
    return audit_pairs(path, probe_options(overrides))


LONGER = "accuracy of always-longer"


def test_length_is_found_and_the_threshold_is_the_persons(tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "p.jsonl", long_chosen(40))
    assert of(audited(path), LONGER).passed is False
    assert of(audited(path, "length.threshold=1.0"), LONGER).passed is True


def test_few_prompts_are_measured_and_not_judged(tmp_path: Path) -> None:
    found = of(audited(pairs_file(tmp_path / "p.jsonl", long_chosen(29))), LONGER)
    assert (found.value, found.passed) == (1.0, None)
    assert "fewer than 30 prompts" in found.note


def test_many_rows_of_one_prompt_are_one_prompt(tmp_path: Path) -> None:
    rows = [(f"Thing {n % 10}?", chosen, rejected) for n, (_, chosen, rejected) in enumerate(long_chosen(200))]
    assert of(audited(pairs_file(tmp_path / "p.jsonl", rows)), LONGER).passed is None


def test_soft_labels_count_by_their_probability_and_ties_not_at_all(tmp_path: Path) -> None:
    soft = audited(pairs_file(tmp_path / "soft.jsonl", long_chosen(40), p_chosen=0.7))
    assert of(soft, LONGER).value == pytest.approx(0.7)
    ties = audited(pairs_file(tmp_path / "ties.jsonl", long_chosen(40), p_chosen=0.5))
    assert of(ties, LONGER).value is None
    turned = audited(pairs_file(tmp_path / "turned.jsonl", long_chosen(40), p_chosen=0.2))
    assert of(turned, LONGER).value == pytest.approx(0.2)


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "p.jsonl", long_chosen(40))
    path.write_text(path.read_text() + "no json\n")
    assert (audited(path).rows, audited(path).left_out) == (40, 1)


@pytest.mark.parametrize(
    ("override", "what"),
    [("length=3", "probe.key=value"), ("lenght.threshold=1", "length"), ("length.treshold=1", "threshold")],
)
def test_a_mistyped_threshold_is_one_line_that_helps(override: str, what: str) -> None:
    with pytest.raises(Mistake, match=what):
        probe_options([override])


def test_a_run_is_held_against_its_own_constitution_critiques_and_orders(tmp_path: Path) -> None:
    asked = [prompt(f"p{n}", f"What is thing number {n}?") for n in range(40)]
    critique = "The answer wanders off into history where nobody asked for any history at all."
    made = [trace(one, f"A draft about {one.id}.", f"An answer. {critique}") for one in asked]
    said = [_said(one, critique) for one in made]
    verdict = Verdict(0.9, "logprob", "judge", orders=(1.0, 0.6), flip=False)
    rows = [_labelled(pair(one.prompt, one.final, one.draft.text), verdict) for one in said]
    run = plant(tmp_path / "run", said, rows)
    audit = audited(run.path)
    assert of(audit, "leaks, chosen minus rejected").value == 1.0
    assert of(audit, "added to p by being shown first").value == pytest.approx(0.2)


def _said(one: Any, critique: str) -> Any:
    from dataclasses import replace

    from cai.core.types import Completion

    return replace(one, steps=tuple(replace(step, critique=Completion(critique)) for step in one.steps))


def _labelled(row: Any, verdict: Verdict) -> Any:
    from dataclasses import replace

    return replace(row, verdict=verdict)


def test_findings_of_a_run_are_kept_and_replaced_by_those_of_the_same_thing(tmp_path: Path) -> None:
    asked = [prompt(f"p{n}") for n in range(3)]
    run = plant(tmp_path / "run", pairs=[pair(one, "Yes, it is.", "No.") for one in asked])
    found = Finding("length", "x", 1.0, None, None, None, None)
    write_findings(run.path, [Audit("reward m", 3, (found,))])
    write_findings(run.path, [audited(run.path)])
    write_findings(run.path, [audited(run.path)])
    held = json.loads((run.path / "findings.json").read_text())
    assert [one["of"] for one in held["audits"]] == ["reward m", "pairs"]


def test_the_command_prints_a_table_and_stops_at_the_gate(tmp_path: Path) -> None:
    pairs_file(tmp_path / "p.jsonl", long_chosen(40))
    done = cai(tmp_path, "audit", "pairs", "p.jsonl")
    assert done.returncode == 0, done.stderr
    assert "FAIL  length" in done.stdout and "1 of" not in done.stderr
    gated = cai(tmp_path, "audit", "pairs", "p.jsonl", "--gate", "--json")
    assert gated.returncode == 100
    (said,) = json.loads(gated.stdout)
    assert said["rows"] == 40 and said["failed"] >= 1
    assert "length" in gated.stderr
    fair = cai(tmp_path, "audit", "pairs", "p.jsonl", "--gate", "-o", "length.threshold=1", "-o", "phrases.threshold=1")
    assert fair.returncode == 0, fair.stdout


def test_an_audit_loads_nothing_heavy() -> None:
    from process import HEAVY, loaded_by

    names = ", ".join(f"cai.audit.{name}" for name in plugins.plugin_names("audit"))
    assert not loaded_by(f"import cai.audit.subjects.audit, {names}") & set(HEAVY)


@pytest.mark.parametrize(("name", "accuracy"), [("hhh_438", 0.64), ("pandalm_test", 0.67), ("hh_harmless_test", 0.45)])
def test_length_figures_of_published_pairs_agree(data: Path, name: str, accuracy: float) -> None:
    assert of(audited(data / "pairs" / f"{name}.jsonl"), LONGER).value == pytest.approx(accuracy, abs=0.005)


def test_every_published_set_of_pairs_can_be_audited(data: Path) -> None:
    for path in sorted((data / "pairs").glob("*.jsonl")):
        assert audited(path).left_out == 0


@pytest.fixture(scope="session")
def tiny_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of a few thousand weights: a real architecture, a real head, no sense."""
    import torch
    from tiny import CHAT, _shape, _tokenizer
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("rewards") / "tiny"
    config = AutoConfig.for_model(**_shape("llama"), bos_token_id=1, eos_token_id=0, pad_token_id=0, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    _tokenizer(CHAT).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_reward_model_in_a_folder_is_audited_and_long_rows_are_left_out(tmp_path: Path, tiny_reward: Path) -> None:
    rows = [*long_chosen(8), ("A long one?", "word " * 200, "No.")]
    path = pairs_file(tmp_path / "p.jsonl", rows)
    done = cai(tmp_path, "audit", "reward", str(tiny_reward), "--rows", str(path), "--json")
    assert done.returncode == 0, done.stderr
    (said,) = json.loads(done.stdout)
    assert (said["of"], said["rows"], said["left_out"]) == ("reward tiny", 8, 1)
    pad = next(found for found in said["findings"] if "empty sentences added" in found["what"])
    assert pad["value"] is not None and pad["passed"] is None


@pytest.mark.slow
def test_two_rewards_are_an_ensemble_and_gold_is_held_against_them(tmp_path: Path, tiny_reward: Path) -> None:
    rows = [(f"Thing {n % 3}?", f"A {n}.", f"B {n}.") for n in range(12)]
    path = pairs_file(tmp_path / "p.jsonl", rows)
    audit = audit_reward([tiny_reward, tiny_reward], path, probe_options(), gold=tiny_reward)
    assert of(audit, "disagreement of the ensemble at its highest rewards").value == pytest.approx(0.0)
    assert of(audit, "fall of the gold reward from the best n to the largest").value is not None


def test_the_cache_of_scores_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CACHED", 3)
    asked: list[str] = []

    def score(rows: Sequence[audit.ScoredRow]) -> list[float]:
        asked.extend(text for _, text in rows)
        return [float(len(text)) for _, text in rows]

    cached = audit._cached(score)
    rows = [((), "x" * n) for n in range(5)]
    assert cached(rows) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert cached(rows[2:]) == [2.0, 3.0, 4.0] and len(asked) == 5
    assert cached(rows[:1]) == [0.0] and len(asked) == 6  # the oldest were dropped
