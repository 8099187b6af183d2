"""The command line as a stranger meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from process import cai


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text(
        "constitution: concise\nprompts: p.jsonl\nwriter: {backend: scripted, script: 'scripts:steady'}\n"
        "templates: small\ncritique: {rounds: 1}\n"
    )
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({"id": f"p{n}", "prompt": f"Thing {n}?"}) + "\n" for n in range(6))
    )
    return tmp_path


def test_help_names_the_verbs(tmp_path: Path) -> None:
    done = cai(tmp_path, "--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("run", "try", "show", "export", "report", "init", "constitution"))


def test_a_run_prints_its_funnel_and_leaves_its_folder(work: Path) -> None:
    done = cai(work, "run", "r.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/r: 6 prompts -> 6 traces -> 6 pairs")
    names = {path.name for path in (work / "runs" / "r").iterdir()}
    expected = {
        "recipe.yaml",
        "manifest.json",
        "traces.jsonl",
        "pairs.jsonl",
        "failures.jsonl",
        "export",
        "report.html",
    }
    assert expected <= names
    assert cai(work, "show", "r").stdout.startswith("runs/r: 6 prompts")
    assert "[-" in cai(work, "show", "r", "p3").stdout


def test_json_is_one_document_on_stdout(work: Path) -> None:
    for arguments in (
        ("run", "r.yaml"),
        ("show", "r"),
        ("show", "r", "p1"),
        ("run", "r.yaml", "--dry-run"),
        ("export", "r"),
    ):
        done = cai(work, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_a_dry_run_writes_no_rows(work: Path) -> None:
    done = cai(work, "run", "r.yaml", "--dry-run")
    assert done.stdout.startswith("6 prompts: 0 calls are answered already, at most 18 are new\n")
    assert not (work / "runs" / "r" / "traces.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "nowhere.yaml"), 2, "there is no such recipe"),
        (("run", "r.yaml", "-o", "critique.rouds=3"), 2, "did you mean 'rounds'"),
        (("run", "r.yaml", "--name", "../../etc"), 2, "is not a run name"),
        (("run", "r.yaml", "-o", "constitution=nothing"), 2, "neither a file nor a shipped constitution"),
        (("run", "r.yaml", "-o", "prompts=missing.jsonl"), 2, "there is no such file"),
        (("run", "r.yaml", "-o", "writer.backend=transfomers"), 2, "did you mean 'transformers'"),
        (("run", "r.yaml", "-o", "writer.script=no_such_module:f"), 2, "no_such_module"),
        (("run", "r.yaml", "-o", "writer.sript=x"), 2, "did you mean 'script'"),
        (("run", "r.yaml", "-o", "writer.script=scripts:troubled", "-o", "max_failure_share=0"), 3, "prompts failed"),
        (("run", "r.yaml", "-o", "writer.script=scripts:refused"), 2, "the key was refused"),
        (("show", "nowhere"), 2, "holds no run"),
        (("show", "../x"), 2, "holds no run"),
        (("export", "nowhere"), 2, "holds no run"),
        (("constitution", "show", "conciser"), 2, "did you mean 'concise'"),
        (("init", "."), 2, "is there already"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_on_stderr_and_an_exit_code(
    work: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = cai(work, *arguments, "--quiet") if arguments[0] == "run" else cai(work, *arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if arguments[0] != "frobnicate":
        assert len(done.stderr.strip().split("\n")) == 1


def test_a_constitution_at_fault_is_listed_with_lines_and_exits_with_100(work: Path) -> None:
    (work / "c.yaml").write_text("name: c\nprinciples:\n  - id: x\n    critique: Is it so?\n    revize: Do it.\n")
    done = cai(work, "constitution", "lint", "c.yaml")
    assert done.returncode == 100
    assert "c.yaml:5" in done.stdout
    assert "did you mean 'revise'" in done.stdout


def test_init_lays_out_a_folder_that_runs(tmp_path: Path) -> None:
    assert cai(tmp_path, "init", "work").returncode == 0
    work = tmp_path / "work"
    assert cai(work, "constitution", "lint", "constitutions/mine.yaml").returncode == 0
    script = ("-o", "writer={backend: scripted, script: 'scripts:steady'}")
    done = cai(work, "run", "mine", "--quiet", "-o", "prompts.limit=3", *script)
    assert done.returncode == 0, done.stderr
    assert "3 prompts" in done.stdout


def test_model_text_reaches_the_terminal_defused(work: Path) -> None:
    (work / "evil.jsonl").write_text(
        json.dumps({"answer": "\x1b[2J\x1b]0;owned\x07 [red]x[/red] [/foo] \u202eevil"}) + "\n"
    )
    done = cai(work, "try", "Hello?", "--recipe", "r.yaml", "-o", "writer.script=evil.jsonl")
    assert done.returncode == 0, done.stderr
    assert "[red]x[/red] [/foo]" in done.stdout
    assert "\x1b[2J" not in done.stdout
    assert "\u202e" not in done.stdout


def test_progress_is_plain_lines_where_there_is_no_terminal_and_nothing_when_quiet(work: Path) -> None:
    slow = ("-o", "writer.seconds=0.3", "-o", "writer.concurrency=1", "-o", "prompts.limit=2")
    loud = cai(work, "run", "r.yaml", *slow)
    assert "0 / 2" in loud.stderr
    assert "\x1b" not in loud.stderr
    assert cai(work, "run", "r.yaml", "--name", "b", "--quiet", *slow).stderr == ""


def test_a_bug_of_ours_is_one_line_too_and_whole_with_debug(work: Path) -> None:
    (work / "broken.py").write_text("def answer(request):\n    raise KeyError('oops')\n")
    broken = ("run", "r.yaml", "--quiet", "-o", "writer.script=broken:answer")
    done = cai(work, *broken)
    assert done.returncode == 1
    assert "internal error: KeyError" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in cai(work, "--debug", *broken).stderr


def test_failures_are_grouped_with_a_hint_and_retry_asks_only_them(work: Path) -> None:
    moody = ("-o", "writer.script=scripts:moody", "-o", "max_failure_share=1")
    lost = json.loads(cai(work, "run", "r.yaml", "--json", *moody).stdout)["failures"]["http_503"]
    assert f"{lost} http_503 in draft: `cai retry` asks again" in cai(work, "failures", "r").stdout
    again = cai(work, "retry", "r", "--json", CAI_TEST_MOOD="good")
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert said["failures"] == {}
    assert 0 < said["starts"][-1]["calls"]["writer"]["asked"] == 3 * lost


def test_a_limit_stops_the_run_with_exit_4_and_a_higher_one_goes_on(work: Path) -> None:
    stopped = cai(work, "run", "r.yaml", "--quiet", "--max-calls", "5")
    assert stopped.returncode == 4
    assert "a higher limit goes on" in stopped.stderr
    done = cai(work, "run", "r.yaml", "--quiet", "--max-calls", "13", "--json")
    assert json.loads(done.stdout)["calls"]["writer"]["found"] == 5


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_pipe_that_its_reader_closes_is_no_error(tmp_path: Path, reader: str) -> None:
    rows = [{"prompt": f"q{n}", "chosen": f"a b c {n}", "rejected": f"d e f {n}"} for n in range(40)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = f"{sys.executable} -m cai check p.jsonl -o boilerplate=1 | {reader} > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    command = f"{sys.executable} -m cai check p.jsonl > /dev/full"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("cai: the output: cannot be written: No space left")
