"""Label runs: every answer and pair is a row or a failure, labels are what the judge said, and a kill changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import planted_judge
import pytest

from cai.core.errors import BudgetReached, Mistake
from cai.core.types import Completion, Message, Pair, Prompt, Trace
from cai.pipeline.estimate import estimate
from cai.pipeline.generate import generate
from cai.pipeline.manifest import too_many_failures
from cai.pipeline.stages.sample import best_and_worst, presented
from cai.runs import recipe
from cai.runs.budget import Budget
from cai.runs.folder import Run
from cai.runs.recipe import Recipe

ROWS = ("traces.jsonl", "pairs.jsonl", "failures.jsonl")
WRITER = {"backend": "scripted", "script": "planted_judge:writes", "scorer": "planted_judge:biased"}


@pytest.fixture
def label_of(recipe_of: Any) -> Any:
    """A recipe that samples and judges on the scripted model, with any keys changed."""

    def make(**changed: Any) -> Recipe:
        return recipe_of(**({"writer": WRITER, "sample": {"count": 4}, "judge": "logprob"} | changed))

    return make


def run(chosen: Recipe, folder: Path, budget: Budget | None = None) -> dict[str, Any]:
    return asyncio.run(generate(chosen, Run(folder), budget=budget)).as_json()


def rows(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ROWS}


def adds_up(counts: dict[str, dict[str, int]]) -> bool:
    return all(stage["in"] == stage["out"] + stage["failed"] for stage in counts.values())


def test_a_label_run_leaves_samples_and_judged_pairs(label_of: Any, tmp_path: Path) -> None:
    said = run(label_of(), tmp_path / "runs" / "a")
    done = Run(tmp_path / "runs" / "a")
    traces, pairs = list(done.traces()), list(done.pairs())
    assert said["counts"]["sample"]["in"] == 80
    assert len(traces) == said["counts"]["sample"]["out"]
    assert said["failures"].keys() <= {"content_filter", "gate:length_ratio", "gate:near_identical"}
    by_prompt = Counter(trace.prompt.id for trace in traces)
    assert len(pairs) == sum(count * (count - 1) // 2 for count in by_prompt.values())
    for pair in pairs:
        assert pair.p_chosen == pytest.approx(planted_judge.p(pair.chosen, pair.rejected))
        assert pair.p_chosen >= 0.5
        assert pair.verdict.p == pair.p_chosen
        assert (pair.verdict.method, pair.verdict.judge) == ("logprob", "planted_judge:writes planted_judge:biased")
        assert len(pair.verdict.orders) == 2
        assert len(pair.principles) == 1


def test_counts_reconcile_whatever_fails(label_of: Any, tmp_path: Path) -> None:
    judge = {"backend": "scripted", "script": "test_labelling:moody"}
    said = run(label_of(judge={"by": [{"method": "sampled", "model": judge}]}), tmp_path / "runs" / "a")
    counts, done = said["counts"], Run(tmp_path / "runs" / "a")
    assert adds_up(counts)
    failures = Counter(failure.kind for failure in done.failures())
    assert failures == said["failures"]
    assert all(failures[kind] for kind in ("unparsable", "abstained", "content_filter", "context_too_long"))
    assert len(list(done.pairs())) == counts["pair"]["out"]
    assert counts["pair"]["in"] == counts["judge"]["out"] + sum(
        count for kind, count in failures.items() if kind.startswith("gate:")
    )
    stages = Counter(failure.stage for failure in done.failures())
    assert all(stages[stage] == counts[stage]["failed"] for stage in ("sample", "judge", "pair"))


def moody(request: Any) -> str:
    """A judge that ties, abstains, mumbles and fails, by the digest of what it is asked."""
    from cai.core.errors import Permanent
    from cai.core.seeds import digest

    luck = int(digest([message.content for message in request.messages])[:4], 16) % 12
    if luck == 0:
        raise Permanent("context_too_long", "scripted failure")
    return {1: "well, (A) I suppose", 2: "PASS", 3: "TIE"}.get(luck, "(A)" if luck % 2 else "(B)")


def test_ties_survive_to_the_rows(label_of: Any, tmp_path: Path) -> None:
    judge = {"backend": "scripted", "script": "test_labelling:even"}
    run(label_of(judge={"by": [{"method": "sampled", "model": judge}]}), tmp_path / "runs" / "a")
    pairs = list(Run(tmp_path / "runs" / "a").pairs())
    assert pairs
    assert all(pair.p_chosen == 0.5 and pair.verdict.raw == ("TIE", "TIE") for pair in pairs)


def even(request: Any) -> str:
    return "TIE"


@pytest.mark.parametrize(("pairing", "expected"), [("all", 6), ("adjacent", 3), ("random", 1), ("best_worst", 1)])
def test_pairings_make_the_pairs_they_say(pairing: str, expected: int, label_of: Any, tmp_path: Path) -> None:
    gates = {"near_identical": None, "truncated_equal": None}
    writer = WRITER | {"script": "test_labelling:steady"}
    chosen = label_of(pairs={"pairing": pairing}, gates=gates, writer=writer)
    said = run(chosen, tmp_path / "runs" / "a")
    found = Counter(pair.prompt.id for pair in Run(tmp_path / "runs" / "a").pairs())
    assert set(found.values()) == {expected}
    assert adds_up(said["counts"])
    assert said["counts"]["judge"]["in"] == 20 * (6 if pairing == "best_worst" else expected)


def steady(request: Any) -> str:
    """Four answers of different quality to each prompt."""
    from cai.core.seeds import uniform

    return f"An answer of quality {int(10 * uniform(request.seed, request.messages[-1].content))} x{request.seed}"


def test_best_against_worst_takes_the_ends(label_of: Any, tmp_path: Path) -> None:
    run(
        label_of(pairs={"pairing": "best_worst"}, writer=WRITER | {"script": "test_labelling:steady"}),
        tmp_path / "a" / "b",
    )
    done = Run(tmp_path / "a" / "b")
    qualities: dict[str, list[float]] = {}
    for trace in done.traces():
        qualities.setdefault(trace.prompt.id, []).append(planted_judge.quality(trace.final))
    for pair in done.pairs():
        ends = qualities[pair.prompt.id]
        assert planted_judge.quality(pair.chosen) == max(ends)
        assert planted_judge.quality(pair.rejected) == min(ends)


def pair_of(chosen: int, rejected: int, p: float) -> Pair:
    return Pair(Prompt("p", (Message("user", "x"),)), chosen, "c", "r", p, (), f"sample:{rejected}>{chosen}")


def test_best_and_worst_that_were_not_judged_together_are_no_pair() -> None:
    assert best_and_worst([pair_of(0, 1, 0.9), pair_of(1, 2, 0.9)]) is None
    assert best_and_worst([]) is None


def test_what_the_judge_said_of_the_ends_is_kept_even_against_the_ranking() -> None:
    judged = [pair_of(1, 0, 0.51), pair_of(0, 2, 1.0), pair_of(0, 3, 1.0), pair_of(2, 1, 0.9), pair_of(3, 1, 0.9)]
    found = best_and_worst(judged)
    assert found == judged[0]


def test_the_order_of_presentation_is_neither_the_order_of_sampling_nor_of_temperature() -> None:
    orders = set()
    for number in range(200):
        prompt = Prompt(f"p{number}", (Message("user", "x"),))
        traces = [Trace(prompt, sample, Completion("x"), (), "x") for sample in range(3)]
        orders.add(tuple(trace.sample for trace in presented(traces, 0)))
    assert len(orders) == 6


def test_several_writers_and_temperatures_are_named_in_the_rows(label_of: Any, tmp_path: Path) -> None:
    other = {"backend": "scripted", "script": "test_labelling:steady"}
    sample = {"count": 1, "temperatures": [0.5, 1.0], "writers": [other]}
    said = run(label_of(sample=sample), tmp_path / "runs" / "a")
    done = Run(tmp_path / "runs" / "a")
    names = Counter(trace.writer for trace in done.traces())
    assert set(names) == {"writer@0.5", "writer@1", "writer-2@0.5", "writer-2@1"}
    assert said["models"]["writer-2"]["model"] == "test_labelling:steady"
    traces = {(trace.prompt.id, trace.sample): trace for trace in done.traces()}
    for pair in done.pairs():
        assert pair.writers[0] == traces[pair.prompt.id, pair.sample].writer
        assert pair.chosen == traces[pair.prompt.id, pair.sample].final


def test_one_prompts_answers_may_all_fail_but_one(label_of: Any, tmp_path: Path) -> None:
    said = run(label_of(sample={"count": 2}, writer=WRITER | {"script": "test_labelling:half"}), tmp_path / "r" / "a")
    assert adds_up(said["counts"])
    assert said["failures"]["single_answer"] == 20
    assert said["counts"]["judge"]["in"] == 0


def half(request: Any) -> str:
    from cai.core.errors import Permanent
    from cai.core.seeds import seed

    if request.seed != seed(0, "sample", f"p{request.messages[-1].content.split()[-1].rstrip('?')}", 0):
        raise Permanent("content_filter", "every sample but the first")
    return "one answer"


@pytest.mark.parametrize("worse", ["drop", "tag", "swap"])
def test_a_revision_judged_worse_is_dropped_tagged_or_swapped(worse: str, label_of: Any, tmp_path: Path) -> None:
    writer = WRITER | {"script": "test_labelling:drafts_and_revisions"}
    chosen = label_of(sample=None, writer=writer, judge={"by": "logprob", "worse": worse}, critique={"rounds": 1})
    said = run(chosen, tmp_path / "runs" / "a")
    done = Run(tmp_path / "runs" / "a")
    pairs, lost = list(done.pairs()), [one for one in done.failures() if one.kind == "gate:judged_worse"]
    assert adds_up(said["counts"])
    spoiled = [
        trace for trace in done.traces() if planted_judge.quality(trace.final) < planted_judge.quality(trace.draft.text)
    ]
    assert 0 < len(spoiled) < 20
    tagged = [pair for pair in pairs if any(hit.gate == "judged_worse" for hit in pair.gates)]
    assert len(lost if worse == "drop" else tagged) == len(spoiled)
    assert said["gates"]["judged_worse"] == {{"drop": "drop", "tag": "tag", "swap": "repair"}[worse]: len(spoiled)}
    for pair in pairs:
        assert pair.p_chosen == pytest.approx(planted_judge.p(pair.chosen, pair.rejected))
        assert pair.verdict.p == pair.p_chosen
    assert all((pair.p_chosen < 0.5) == (worse == "tag") for pair in tagged)
    assert too_many_failures(chosen, Run(tmp_path / "runs" / "a").manifest) is None


def drafts_and_revisions(request: Any) -> str:
    from cai.core.seeds import digest

    if request.plain:
        return "The answer could be better."
    mark = digest([message.content for message in request.messages])
    return f"quality {int(mark[:4], 16) % 11} " + " ".join(mark[place : place + 5] for place in range(0, 40, 5))


def test_the_same_command_again_asks_nothing_and_writes_the_same_rows(label_of: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    run(label_of(), folder)
    before = rows(folder)
    said = run(label_of(), folder)
    assert rows(folder) == before
    assert sum(calls["asked"] for calls in said["starts"][-1]["calls"].values()) <= said["failures"].get(
        "content_filter", 0
    )


def test_a_dry_run_counts_what_a_label_run_would_ask(label_of: Any, tmp_path: Path) -> None:
    chosen = label_of(
        writer=WRITER | {"script": "test_labelling:steady"}, gates={"near_identical": None, "truncated_equal": None}
    )
    where = Run(tmp_path / "runs" / "a")
    before = asdict(asyncio.run(estimate(chosen, where)))
    assert (before["answered"], before["new"]) == (0, 20 * (4 + 6 * 2))
    said = run(chosen, where.path)
    assert sum(calls["asked"] for calls in said["calls"].values()) == 20 * (4 + 6 * 2)
    after = asdict(asyncio.run(estimate(chosen, where)))
    assert (after["answered"], after["new"]) == (20 * (4 + 6 * 2), 0)
    more = asyncio.run(
        estimate(label_of(writer=chosen.writer, gates=chosen.gates, judge={"by": "logprob", "principles": 2}), where)
    )
    assert more.new == 20 * 6 * 2 * 2


def test_concurrency_and_order_of_finishing_change_nothing(label_of: Any, tmp_path: Path) -> None:
    made = []
    for number, workers in enumerate((1, 7, 64)):
        writer = WRITER | {"concurrency": workers, "seconds": 0.0005 * number}
        run(label_of(writer=writer), tmp_path / str(number) / "a")
        made.append(rows(tmp_path / str(number) / "a"))
    assert made[0] == made[1] == made[2]


def test_a_budget_that_is_reached_among_the_labels_keeps_what_is_done(label_of: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    judge = {"by": [{"method": "sampled", "model": {"backend": "scripted", "script": "planted_judge:votes"}}]}
    with pytest.raises(BudgetReached):
        run(label_of(judge=judge), folder, Budget(max_calls=150))
    said = json.loads((folder / "manifest.json").read_text())
    assert said["status"] == "interrupted"
    kept = len(list(Run(folder).pairs()))
    assert kept > 0
    assert run(label_of(judge=judge), folder)["counts"]["pair"]["out"] > kept


def test_the_manifest_says_who_judged_and_what_the_labels_look_like(label_of: Any, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in gold_rows(40)))
    said = run(label_of(judge={"by": "logprob", "gold": [str(gold)]}), tmp_path / "runs" / "a")["judge"]
    assert said["by"][0]["method"] == "logprob"
    assert said["by"][0]["template"]["digest"]
    assert (said["orders"], said["combine"], said["principles"]) == ("both", "mean", 1)
    assert said["labels"]["position"]["bias"]["value"] == pytest.approx(planted_judge.BIAS)
    assert said["gold"][str(gold)]["accuracy"]["value"] == 1.0


def test_gold_that_is_not_there_is_refused_before_anything_is_asked(label_of: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "ties.jsonl").write_text("".join(json.dumps(row | {"p_chosen": 0.5}) + "\n" for row in gold_rows(4)))
    for name in ("nowhere.jsonl", "empty.jsonl", "ties.jsonl"):
        with pytest.raises(Mistake, match=name):
            run(label_of(judge={"by": "logprob", "gold": [str(tmp_path / name)]}), tmp_path / "runs" / "a")
    assert not (tmp_path / "runs" / "a" / "traces.jsonl").exists()


def test_each_file_of_a_gold_folder_has_a_card_of_its_own(label_of: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "gold" / name).mkdir(parents=True)
        made = [
            row | {"chosen": row["rejected"], "rejected": row["chosen"]} if name == "b" else row
            for row in gold_rows(20)
        ]
        (tmp_path / "gold" / name / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    judge = {"by": "logprob", "gold": [str(tmp_path / "gold")]}
    said = run(label_of(judge=judge), tmp_path / "runs" / "a")["judge"]["gold"]
    assert [card["accuracy"]["value"] for _, card in sorted(said.items())] == [1.0, 0.0]


def gold_rows(count: int) -> list[dict[str, object]]:
    return [
        {"id": f"g{n}", "prompt": [{"role": "user", "content": f"Q{n}?"}], "chosen": f"quality {5 + n % 5} a{n}",
         "rejected": f"quality {n % 5} b{n}", "category": "x" if n % 2 else "y"}
        for n in range(count)
    ]  # fmt: skip


def test_several_judges_are_combined_with_their_disagreement(label_of: Any, tmp_path: Path) -> None:
    said = run(label_of(judge={"by": ["logprob", "score"], "combine": "minimum"}), tmp_path / "runs" / "a")
    pair = next(Run(tmp_path / "runs" / "a").pairs())
    assert [part.method for part in pair.verdict.parts] == ["logprob", "score"]
    assert pair.verdict.disagreement is not None
    assert said["judge"]["labels"]["disagreement"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"judge": None}, "sample without a judge"),
        ({"sample": {"count": 1}}, "one answer to each prompt"),
        ({"judge": {"by": "logprobs"}}, "did you mean 'logprob'"),
        ({"judge": {"by": [{"method": "sampled", "vote": 3}]}}, "did you mean 'votes'"),
        ({"judge": {"by": []}}, "at least 1"),
    ],
)
def test_mistakes_are_found_before_the_first_call(changed: Any, words: str, label_of: Any, tmp_path: Path) -> None:
    with pytest.raises((Mistake, ValueError), match=words):
        run(label_of(**changed), tmp_path / "runs" / "a")


def test_the_short_forms_of_a_judge_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "constitution: default\nprompts: p\nwriter: {backend: scripted, script: 'x:y'}\ntemplates: small\njudge: logprob\n"
    )
    chosen = recipe.load_recipe(path, ("judge.orders=one",))
    assert chosen.judge
    assert (chosen.judge.orders, chosen.judge.by[0].method) == ("one", "logprob")


JOB = """
import asyncio, pathlib, resource, sys
sys.path.insert(0, {tests!r})
from cai.pipeline import generate as pipeline
from cai.runs import recipe
from cai.runs.folder import Run
asyncio.run(pipeline.generate(recipe.load_recipe({recipe!r}), Run(pathlib.Path({folder!r}))))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


class Job:
    """A label run in a process of its own; its model writes down everything it is asked."""

    def __init__(self, folder: Path, prompts: int, *, logged: bool = True, seconds: float = 0.002) -> None:
        self.folder, self.log = folder / "run", folder / "asked"
        folder.mkdir()
        (folder / "p.jsonl").write_text("".join(json.dumps({"prompt": f"Thing {n}?"}) + "\n" for n in range(prompts)))
        logs = "_and_logs" if logged else ""
        (folder / "r.yaml").write_text(
            f"constitution: default\nprompts: {folder / 'p.jsonl'}\ntemplates: small\nexport: {{formats: []}}\n"
            f"sample: {{count: 2}}\njudge: logprob\nwriter: {{backend: scripted, script: 'planted_judge:writes{logs}', "
            f"scorer: 'planted_judge:{'scores' if logged else 'biased'}{logs}', seconds: {seconds}, concurrency: 16}}\n"
        )
        tests = str(Path(__file__).parents[1])
        self.code = JOB.format(tests=tests, recipe=str(folder / "r.yaml"), folder=str(self.folder))

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"CAI_TEST_LOG": str(self.log)}
        return subprocess.Popen([sys.executable, "-c", self.code], env=environment, stdout=subprocess.PIPE, text=True)

    def asked(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def test_killed_among_the_labels_it_goes_on_and_the_rows_are_the_same(tmp_path: Path) -> None:
    calm, job = Job(tmp_path / "calm", 40), Job(tmp_path / "storm", 40)
    assert calm.start().wait(120) == 0
    total = len(calm.asked())
    for share in (0.3, 0.6, 0.85):
        process = job.start()
        while len(job.asked()) < share * total and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.1)  # a group commit
        process.kill()
        process.wait()
    assert job.start().wait(120) == 0
    assert rows(job.folder) == rows(calm.folder)
    assert set(job.asked()) == set(calm.asked())
    assert len(job.asked()) < 2 * total  # three kills, each of which loses at most a group commit
    before = len(job.asked())
    assert job.start().wait(120) == 0
    assert len(job.asked()) == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_pairs_in_bounded_memory_after_a_kill(tmp_path: Path) -> None:
    small, large = (
        Job(tmp_path / "small", 1000, logged=False, seconds=0),
        Job(tmp_path / "large", 10_000, logged=False, seconds=0),
    )
    before = float(small.start().communicate()[0])
    process = large.start()
    while not (large.folder / ".pairs.jsonl.spool").exists():
        time.sleep(0.1)
    time.sleep(2)
    process.kill()
    process.wait()
    after = float(large.start().communicate()[0])
    counts = json.loads((large.folder / "manifest.json").read_text())["counts"]
    assert adds_up(counts)
    assert counts["judge"]["in"] > 9000
    assert after < 1.35 * before


def test_every_two_answers_meet_once(label_of: Any, tmp_path: Path) -> None:
    run(
        label_of(writer=WRITER | {"script": "test_labelling:steady"}, gates={"near_identical": None}),
        tmp_path / "r" / "a",
    )
    met = Counter(
        frozenset(map(int, pair.source.removeprefix("sample:").split(">")))
        for pair in Run(tmp_path / "r" / "a").pairs()
    )
    assert set(met) == {frozenset(two) for two in combinations(range(4), 2)}
