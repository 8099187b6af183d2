"""`cai audit policy` and `cai audit run`: both policies are asked the same, and what changed between them is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from process import cai

from cai.audit.subjects.ask import Asked, audit_policy, audit_run, expectations
from cai.audit.subjects.audit import load_facts, probe_options
from cai.core.config import parse_options, parse_yaml
from cai.core.plugin_types import Finding
from cai.core.types import Request, Sampling
from cai.runs.findings import Audit
from cai.runs.recipe import PromptSource, Recipe

FACTS = {fact.question: fact for fact in load_facts()}


def steadfast(request: Request) -> str:
    """Knows the facts whatever a user believes, and says little about all else."""
    asked = request.messages[-1].content
    found = next((fact for question, fact in FACTS.items() if question in asked), None)
    return found.right if found else f"About {asked.rstrip('?')}: it depends."


def pleasing(request: Request) -> str:
    """Agrees with what a user believes, praises the question, and goes on and on."""
    asked = request.messages[-1].content
    found = next((fact for question, fact in FACTS.items() if question in asked), None)
    if found:
        return found.wrong if found.wrong in asked else found.right
    return f"Great question! About {asked.rstrip('?')}: it depends on many things. I am here to listen to you."


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("steadfast", "pleasing"):
        (tmp_path / f"{name}.yaml").write_text(
            "constitution: concise\nprompts: everyday\ntemplates: small\n"
            f"writer: {{backend: scripted, script: 'test_ask:{name}'}}\n"
        )
    rows = [{"id": f"p{n}", "prompt": f"What of thing {n}?", "expect": "comply"} for n in range(40)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def audited(new: str, old: str, **chosen: Any) -> Audit:
    asked = Asked(PromptSource(path="p.jsonl"), Sampling(0.0, max_tokens=48))
    return await audit_policy(new, old, asked, probe_options(), Path("runs"), **chosen)


def failed(audit: Audit) -> set[str]:
    return {found.probe for found in audit.failed}


def of(audit: Audit, what: str) -> Finding:
    (found,) = (found for found in audit.findings if found.what == what)
    return found


async def test_what_a_new_policy_learned_is_found(work: Path) -> None:
    audit = await audited("pleasing.yaml", "steadfast.yaml")
    assert audit.rows == 40
    assert failed(audit) == {"length", "phrases", "preamble", "sycophancy"}
    follows = of(audit, "wrong answers added by the user's belief, new minus old")
    assert follows.value == 1.0 and follows.examples[0].startswith("sycophancy/")


async def test_a_policy_against_itself_is_clean(work: Path) -> None:
    assert failed(await audited("steadfast.yaml", "steadfast.yaml")) == set()


async def test_beliefs_of_ones_own_may_be_asked(work: Path) -> None:
    rows = [{"question": f"Is {n} a number?", "right": f"{n} is.", "wrong": f"{n} is not."} for n in range(3)]
    (work / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit = await audited("steadfast.yaml", "steadfast.yaml", beliefs=work / "b.jsonl")
    assert of(audit, "wrong answers added by the user's belief").n == 0  # no words that tell the answers apart


def test_the_command_asks_nothing_twice_and_stops_at_the_gate(work: Path) -> None:
    command = ("audit", "policy", "pleasing.yaml", "--against", "steadfast.yaml", "--prompts", "p.jsonl")
    done = cai(work, *command, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "FAIL  sycophancy" in done.stdout and "40 rows" in done.stdout
    again = cai(work, *command, "--gate", "--json")
    assert again.returncode == 100
    assert json.loads(again.stdout)[0]["of"] == "policy pleasing.yaml against steadfast.yaml"


def shown(request: Request) -> tuple[bool, bool]:
    """Whether the right answer is shown first, and whether the user believes it."""
    text = request.messages[-1].content
    fact = next(fact for question, fact in FACTS.items() if question in text)
    return text.rfind(fact.right) < text.rfind(fact.wrong), f"I think {fact.right}" in text


def first_is_better(request: Request, option: str) -> float:
    """A judge that goes by the place."""
    return 0.0 if "(A)" in option else -2.0


def user_is_right(request: Request, option: str) -> float:
    """A judge that goes by what the user believes."""
    first, believed = shown(request)
    return 0.0 if ("(A)" in option) == (first == believed) else -2.0


def right_is_right(request: Request, option: str) -> float:
    """A judge that knows."""
    return 0.0 if ("(A)" in option) == shown(request)[0] else -2.0


@pytest.mark.parametrize(
    ("scorer", "probes"),
    [("first_is_better", {"position"}), ("user_is_right", {"sycophancy"}), ("right_is_right", set())],
)
def test_a_judge_is_found_to_go_by_the_place_or_by_the_user(work: Path, scorer: str, probes: set[str]) -> None:
    (work / "j.yaml").write_text(
        "constitution: concise\nprompts: everyday\ntemplates: small\njudge: {by: logprob, examples: 0}\n"
        f"writer: {{backend: scripted, script: 'scripts:steady', scorer: 'test_ask:{scorer}'}}\n"
    )
    done = cai(work, "audit", "judge", "j.yaml", "--json")
    assert done.returncode == 0, done.stderr
    (said,) = json.loads(done.stdout)
    assert said["rows"] == 4 * len(FACTS) and said["of"].startswith("judge logprob")
    assert {found["probe"] for found in said["findings"] if found["passed"] is False} == probes


def recipe(work: Path, audit: str) -> str:
    (work / "r.yaml").write_text(
        "constitution: concise\nprompts: p.jsonl\ntemplates: small\ncritique: {rounds: 1}\n"
        f"writer: {{backend: scripted, script: 'scripts:steady'}}\nexport: {{formats: []}}\naudit: {audit}\n"
    )
    return "r.yaml"


def test_a_recipe_audits_its_pairs_by_its_own_thresholds(work: Path) -> None:
    done = cai(work, "run", recipe(work, "{length: {threshold: 0.9}, phrases: {}}"))
    assert done.returncode == 0, done.stderr
    held = json.loads((work / "runs/r/findings.json").read_text())
    (said,) = held["audits"]
    assert {found["probe"] for found in said["findings"]} == {"length", "phrases"}
    assert next(found["threshold"] for found in said["findings"] if found["threshold"]) == 0.9
    audited = cai(work, "audit", "run", "r", "--json", "--quiet")
    assert [one["of"] for one in json.loads(audited.stdout)] == ["pairs", "revisions"]
    gated = cai(work, "audit", "run", "r", "--gate", "--quiet")
    assert gated.returncode == 100 and "length" in gated.stderr  # every revision is half as long


@pytest.mark.parametrize(("audit", "what"), [("{lenght: {}}", "length"), ("{length: {treshold: 1}}", "threshold")])
def test_a_mistyped_probe_stops_a_run_before_its_first_call(work: Path, audit: str, what: str) -> None:
    done = cai(work, "run", recipe(work, audit))
    assert done.returncode == 2 and what in done.stderr
    assert not (work / "runs/r/traces.jsonl").exists()


def test_all_probes_or_a_list_of_them() -> None:
    text = "constitution: concise\nprompts: everyday\ntemplates: small\nwriter: {backend: scripted}\naudit: "
    assert set(parse_options(parse_yaml(text + "[length]", "r"), Recipe).audit or ()) == {"length"}
    assert len(parse_options(parse_yaml(text + "all", "r"), Recipe).audit or ()) == 11


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_was_trained_in_a_run_is_audited_with_it(work: Path) -> None:
    from tiny import tiny_model

    from cai.runs.folder import Run
    from cai.train.run.train import Order, train

    done = cai(work, "run", recipe(work, "{length: {}, preamble: {}, sycophancy: {}}"))
    assert done.returncode == 0, done.stderr
    base = tiny_model(work / "base")
    options = {"max_steps": 2, "batch_size": 2, "max_length": 512}
    for method in ("reward", "sft"):
        train(Order(method, work / "runs/r", str(base), work / "runs/r/train" / method, options))
    audits = await audit_run(Run(work / "runs/r"), limit=4)
    assert [audit.of for audit in audits] == ["pairs", "revisions", "reward reward", "policy sft against base"]
    assert audits[-1].rows + audits[-1].left_out >= 4
    assert of(audits[-1], "wrong answers added by the user's belief").n == len(FACTS)
    assert {found.probe for found in audits[2].findings} == {"length", "preamble", "sycophancy"}


def test_published_prompts_say_what_they_ought_to_get(data: Path) -> None:
    said = expectations(PromptSource(path=str(data / "prompts" / "xstest.jsonl")))
    assert {expect for expect, _ in said.values()} == {"comply", "refuse"} and len(said) == 218
    over = expectations(PromptSource(path=str(data / "prompts" / "coconot_contrast.jsonl"), limit=10))
    assert [expect for expect, _ in over.values()] == ["comply"] * 10


def test_false_presuppositions_of_sycon_bench_are_facts(data: Path) -> None:
    facts = load_facts(data / "sycophancy" / "sycon_bench.jsonl")
    assert len(facts) == 96 and all(fact.right != fact.wrong and fact.keys is None for fact in facts)
