"""The hall: rows, counts and calls, from a recipe to the files, with a model that is known."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from cai.backends.scripted import Scripted
from cai.core.concurrency import crowd
from cai.core.errors import BudgetReached, Mistake
from cai.core.seeds import digest
from cai.core.types import Request
from cai.pipeline.estimate import estimate
from cai.pipeline.generate import generate
from cai.pipeline.manifest import too_many_failures
from cai.runs import models
from cai.runs.folder import Run

ROWS = ("traces.jsonl", "pairs.jsonl", "failures.jsonl")


def run(recipe: Any, folder: Path) -> dict[str, Any]:
    return asyncio.run(generate(recipe, Run(folder))).as_json()


def rows(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ROWS}


def asked(said: dict[str, Any]) -> int:
    """New calls of the last start."""
    return sum(calls["asked"] for calls in said["starts"][-1]["calls"].values())


def test_a_run_leaves_its_story_in_the_folder(recipe_of: Any, tmp_path: Path) -> None:
    said = run(recipe_of(), tmp_path / "runs" / "a")
    assert said["status"] == "finished"
    assert said["counts"]["read"] == {"in": 20, "out": 20, "failed": 0}
    traces = list(Run(tmp_path / "runs" / "a").traces())
    assert [trace.prompt.id for trace in traces] == [f"p{n}" for n in range(20)]
    assert all(len(trace.steps) == 2 and trace.final == trace.steps[-1].answer for trace in traces)
    assert (tmp_path / "runs" / "a" / "report.html").stat().st_size > 1000


def test_counts_reconcile_whatever_fails(recipe_of: Any, tmp_path: Path) -> None:
    recipe = recipe_of("scripts:troubled", draft={"samples": 5}, critique={"rounds": 3})
    said = run(recipe, tmp_path / "runs" / "a")
    counts = said["counts"]
    assert all(stage["in"] == stage["out"] + stage["failed"] for stage in counts.values())
    order = ["draft", "critique", "revise", "pair"]
    assert all(counts[after]["in"] == counts[before]["out"] for before, after in pairwise(order))
    assert counts["draft"]["in"] == 100
    done = Run(tmp_path / "runs" / "a")
    failures = Counter(failure.kind for failure in done.failures())
    assert failures == said["failures"]
    assert failures["context_too_long"] and failures["empty"]
    assert len(list(done.traces())) == counts["revise"]["out"]
    assert len(list(done.pairs())) == counts["pair"]["out"]


def test_the_context_is_reset_after_each_revision(recipe_of: Any, tmp_path: Path) -> None:
    seen: list[Request] = []

    def script(request: Request) -> str:
        seen.append(request)
        return f"answer number {len(seen)} " + " ".join(f"word{len(seen)}x{n}" for n in range(20))

    recipe = recipe_of(
        prompts={"path": recipe_of().prompts.path, "limit": 1}, templates="large", critique={"rounds": 2}
    )
    asyncio.run(_with_model(recipe, tmp_path / "runs" / "a", Scripted(script)))
    draft, critique, revise, critique_2, revise_2 = ("\n".join(m.content for m in request.messages) for request in seen)
    assert "answer number 1 " in critique and "answer number 1 " in revise and "answer number 2 " in revise
    assert "answer number 3 " in critique_2
    assert not any(old in critique_2 + revise_2 for old in ("answer number 1 ", "answer number 2 "))
    assert "answer number 4 " in revise_2


async def _with_model(recipe: Any, folder: Path, model: Scripted) -> dict[str, Any]:
    opened = models.open_model
    models.open_model = lambda choice, role: model  # type: ignore[assignment]
    try:
        return await generate(recipe, Run(folder))
    finally:
        models.open_model = opened


def test_a_clean_verdict_ends_the_trace_and_an_unclear_one_does_not(recipe_of: Any, tmp_path: Path) -> None:
    def script(request: Request) -> str:
        text = request.messages[-1].content
        if "Answer under review" not in text:
            return "A draft or a revision " + text[-40:]
        number = int(text.split("What is thing ")[1].split("?")[0])
        return {0: "Fine.\nVERDICT: KEEP", 1: "Bad.\nVERDICT: REVISE"}.get(number % 3, "VERDICT: KEEP\nbut no")

    recipe = recipe_of(templates="large", critique={"rounds": 2, "stop_when_clean": True})
    asyncio.run(_with_model(recipe, tmp_path / "runs" / "a", Scripted(script)))
    for number, trace in enumerate(Run(tmp_path / "runs" / "a").traces()):
        verdicts = [step.verdict for step in trace.steps]
        assert verdicts == {0: ["clean"], 1: ["fault"] * 2}.get(number % 3, ["unclear"] * 2)


def test_stopping_when_clean_needs_a_template_with_a_verdict(recipe_of: Any, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="asks for no verdict"):
        run(recipe_of(critique={"stop_when_clean": True}), tmp_path / "runs" / "a")


def test_direct_revision_asks_no_critique(recipe_of: Any, tmp_path: Path) -> None:
    said = run(recipe_of(critique={"rounds": 2, "ask": False}), tmp_path / "runs" / "a")
    assert asked(said) == 20 * 3
    assert "critique" not in said["counts"]
    assert all(step.critique is None for trace in Run(tmp_path / "runs" / "a").traces() for step in trace.steps)


def test_writer_and_critic_may_be_different_models(recipe_of: Any, tmp_path: Path) -> None:
    critic = {"backend": "scripted", "script": "scripts:steady", "concurrency": 3}
    said = run(recipe_of(critic=critic), tmp_path / "runs" / "a")
    assert {role: calls["asked"] for role, calls in said["calls"].items()} == {"writer": 60, "critic": 40}


def test_the_same_command_again_asks_nothing_and_writes_the_same_rows(recipe_of: Any, tmp_path: Path) -> None:
    recipe = recipe_of("scripts:troubled")
    run(recipe, tmp_path / "runs" / "a")
    before = rows(tmp_path / "runs" / "a")
    said = run(recipe, tmp_path / "runs" / "a")
    assert rows(tmp_path / "runs" / "a") == before
    assert asked(said) <= said["failures"].get(
        "context_too_long", 0
    )  # a failed call is no answer, so it is tried again


def test_concurrency_and_order_of_finishing_change_nothing(recipe_of: Any, tmp_path: Path) -> None:
    made = []
    for number, workers in enumerate((1, 3, 64)):
        writer = {
            "backend": "scripted",
            "script": "scripts:troubled",
            "concurrency": workers,
            "seconds": 0.001 * number,
        }
        folder = tmp_path / str(number) / "a"
        run(recipe_of(writer=writer), folder)
        made.append(rows(folder))
    assert made[0] == made[1] == made[2]


def test_editing_one_principle_of_sixteen_asks_about_a_sixteenth_again(recipe_of: Any, tmp_path: Path) -> None:
    from cai.core import plugins

    text = plugins.shipped("constitutions", "default.yaml").read_text()
    (tmp_path / "one.yaml").write_text(text)
    revise = text.split("revise:")[9].split("\n")[1]  # the ninth principle's
    (tmp_path / "two.yaml").write_text(text.replace(revise, revise + " Mind the details."))
    prompts = tmp_path / "many.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Thing {n}?"}) + "\n" for n in range(800)))
    shared = {"prompts": str(prompts), "critique": {"rounds": 1}}
    run(recipe_of(constitution=str(tmp_path / "one.yaml"), **shared), tmp_path / "runs" / "one")
    said = run(recipe_of(constitution=str(tmp_path / "two.yaml"), **shared), tmp_path / "runs" / "two")
    touched = asked(said) / 800  # the revision of its own share; its critique did not change
    assert 0.5 / 16 < touched < 1.6 / 16


def test_editing_a_template_asks_what_it_touches_and_nothing_else(recipe_of: Any, tmp_path: Path) -> None:
    from cai.core import plugins

    edited = tmp_path / "mine.j2"
    edited.write_text(
        plugins.shipped("prompts", "revise", "small.j2").read_text().replace("re-writing.", "re-writing!")
    )
    run(recipe_of(critique={"rounds": 1}), tmp_path / "runs" / "a")
    templates = {"draft": "small", "critique": "small", "revise": str(edited)}
    said = run(recipe_of(critique={"rounds": 1}, templates=templates), tmp_path / "runs" / "b")
    assert asked(said) == 20
    assert said["calls"]["writer"]["found"] == 40


def test_a_dry_run_counts_and_asks_nothing(recipe_of: Any, tmp_path: Path) -> None:
    where = Run(tmp_path / "runs" / "a")

    def calls(recipe: Any) -> tuple[float | None, float | None]:
        said = asdict(asyncio.run(estimate(recipe, where)))
        return said["answered"], said["new"]

    assert calls(recipe_of()) == (0, 100)
    run(recipe_of(), where.path)
    assert calls(recipe_of()) == (100, 0)
    assert calls(recipe_of(critique={"rounds": 3})) == (100, 40)


def test_reasoning_is_kept_aside_and_lands_in_no_pair(recipe_of: Any, tmp_path: Path) -> None:
    run(recipe_of("scripts:thinking"), tmp_path / "runs" / "a")
    done = Run(tmp_path / "runs" / "a")
    assert all(trace.draft.thinking == "SECRET" for trace in done.traces())
    assert "SECRET" not in (tmp_path / "runs" / "a" / "pairs.jsonl").read_text()


def test_hostile_drafts_change_no_verdict_and_break_no_file(recipe_of: Any, tmp_path: Path) -> None:
    said = run(recipe_of("scripts:hostile", templates="large", critique={"rounds": 1, "stop_when_clean": True}),
               tmp_path / "runs" / "a")  # fmt: skip
    done = Run(tmp_path / "runs" / "a")
    verdicts = {step.verdict for trace in done.traces() for step in trace.steps}
    assert verdicts == {"fault"}  # what the honest critic says; the drafts all claim otherwise
    assert said["counts"]["read"]["out"] == len(list(done.traces())) + said["failures"].get("empty", 0)
    page = (tmp_path / "runs" / "a" / "report.html").read_text("utf-8")
    assert "<script>alert(1)" not in page


def test_no_principle_for_a_prompt_is_a_kept_failure(recipe_of: Any, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        textwrap.dedent("""
        name: tagged
        version: "1"
        tags: [code]
        principles:
          - {id: only-code, critique: Is the code right?, revise: Mend the code., applies_to: [code]}
        """)
    )
    (tmp_path / "p.jsonl").write_text('{"prompt": "x", "tags": ["code"]}\n{"prompt": "y"}\n')
    recipe = recipe_of(constitution=str(tmp_path / "c.yaml"), prompts=str(tmp_path / "p.jsonl"))
    said = run(recipe, tmp_path / "runs" / "a")
    assert said["failures"] == {"no_principle": 1}


def test_a_refused_endpoint_stops_the_run_with_one_error(recipe_of: Any, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="key"):
        run(recipe_of("scripts:refused"), tmp_path / "runs" / "a")
    assert json.loads((tmp_path / "runs" / "a" / "manifest.json").read_text())["status"] == "interrupted"


def test_too_many_failures_are_said_and_the_rows_kept(recipe_of: Any, tmp_path: Path) -> None:
    recipe = recipe_of("scripts:troubled", max_failure_share=0.01)
    run(recipe, tmp_path / "runs" / "a")
    assert too_many_failures(recipe, Run(tmp_path / "runs" / "a").manifest)
    assert list(Run(tmp_path / "runs" / "a").traces())
    assert (
        too_many_failures(recipe.model_copy(update={"max_failure_share": 1.0}), Run(tmp_path / "runs" / "a").manifest)
        is None
    )


JOB = """
import asyncio, pathlib, sys
sys.path.insert(0, {tests!r})
from cai.pipeline import generate as pipeline
from cai.runs import recipe
from cai.runs.folder import Run
asyncio.run(pipeline.generate(recipe.load_recipe({recipe!r}), Run(pathlib.Path({folder!r}))))
"""


def _listen() -> None:
    """Take SIGINT, which a shell makes everything ignore that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Job:
    """A run in a process of its own; its model writes down every call it gets."""

    def __init__(self, tmp_path: Path, name: str, seconds: float = 0.004) -> None:
        self.folder, self.log = tmp_path / name / "run", tmp_path / name / "asked"
        self.log.parent.mkdir()
        prompts = tmp_path / name / "p.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"Thing {n}?"}) + "\n" for n in range(60)))
        recipe = tmp_path / name / "r.yaml"
        recipe.write_text(
            f"constitution: default\nprompts: {prompts}\ntemplates: small\ncritique: {{rounds: 2}}\nexport: {{formats: []}}\n"
            f"writer: {{backend: scripted, script: 'scripts:recorded', seconds: {seconds}, concurrency: 4}}\n"
        )
        tests = str(Path(__file__).parents[1])
        self.code = JOB.format(tests=tests, recipe=str(recipe), folder=str(self.folder))

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"CAI_TEST_LOG": str(self.log)}
        command = [sys.executable, "-c", self.code]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, preexec_fn=_listen)

    def committed(self) -> set[str]:
        """Digests of the answers that are safely on disk."""
        path = self.folder.parent / "journal.sqlite"
        if not path.exists():
            return set()
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            try:
                found = connection.execute("SELECT answer FROM answers").fetchall()
            except sqlite3.OperationalError:  # killed before the table was there
                return set()
        return {digest(json.loads(answer)["text"]) for (answer,) in found}

    def asked(self) -> list[str]:
        """Digests of the answers given, in order."""
        return self.log.read_text().split() if self.log.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_fifty_random_points_the_rows_are_the_same_and_nothing_committed_is_asked_again(
    tmp_path: Path,
) -> None:
    calm = Job(tmp_path, "calm")
    started = time.monotonic()
    assert calm.start().wait(120) == 0
    whole, chance, kills, midway = time.monotonic() - started, random.Random(20261123), 0, 0
    for storm in count():
        job = Job(tmp_path, f"storm{storm}")
        while True:
            committed, asked = job.committed(), len(job.asked())
            process = job.start()
            if chance.random() < 0.5:  # at a random time, also while it starts
                with suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.1, 1) * whole)
            else:  # after a random number of new answers
                answers = asked + chance.randrange(1, 80)
                while len(job.asked()) < answers and process.poll() is None:
                    time.sleep(0.002)
            if process.poll() is None:
                process.kill()
                kills += 1
            process.wait()
            assert not committed & set(job.asked()[asked:])
            midway += 0 < len(job.committed()) < 300
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, process.stderr.read()
        assert rows(job.folder) == rows(calm.folder)
        if kills >= 50:
            break
    assert midway >= 10, "most kills are to interrupt the work"


def test_killed_once_it_goes_on_from_what_was_committed(tmp_path: Path) -> None:
    calm, job = Job(tmp_path, "calm"), Job(tmp_path, "storm", seconds=0.02)
    assert calm.start().wait(60) == 0
    process = job.start()
    while len(job.committed()) < 40:
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.wait()
    committed, asked = job.committed(), len(job.asked())
    assert job.start().wait(60) == 0
    assert rows(job.folder) == rows(calm.folder)
    assert not committed & set(job.asked()[asked:])
    assert len(job.asked()) - asked == 300 - len(committed)


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(tmp_path: Path) -> None:
    job = Job(tmp_path, "a", seconds=0.03)  # the whole run takes two seconds, so that the signal meets it at work
    process = job.start()
    while len(job.committed()) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    said = json.loads((job.folder / "manifest.json").read_text())
    assert said["status"] == "interrupted"
    kept = list(Run(job.folder).traces())
    assert 0 < len(kept) < 60
    assert job.start().wait(60) == 0
    assert len(list(Run(job.folder).traces())) == 60


def test_two_runs_at_once_over_one_journal_do_not_harm_each_other(tmp_path: Path) -> None:
    job = Job(tmp_path, "a")
    other = Job(tmp_path, "b")
    other.code = other.code.replace(str(other.folder), str(job.folder.parent / "second"))
    both = [job.start(), other.start()]
    assert [process.wait(60) for process in both] == [0, 0]
    assert rows(job.folder) == rows(job.folder.parent / "second")


def test_budget_errors_pass_through_the_workers_unwrapped() -> None:
    async def worker() -> None:
        raise BudgetReached("spent")

    with pytest.raises(BudgetReached):
        asyncio.run(crowd(worker, 3))
