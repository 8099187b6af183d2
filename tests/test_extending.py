"""Each kind of contribution in CONTRIBUTING.md's table is one file: all are added from a temporary package and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cai.core.plugins import PACKAGE
from cai.runs.manifest import Manifest

FILES = {
    # one file a kind, as the table says
    "mine.yaml": """\
name: mine
version: "1.0.0"
principles:
  - id: be-plain
    critique: Say which words of the answer are not plain.
    revise: Rewrite the answer in plain words.
    compare: Which answer is plainer?
""",
    "prompts/draft/own.j2": "{# form: chat\n   variables: [conversation] #}\n{% for turn in conversation %}{% call user() %}"
    "{{ turn.content | turn }}{% endcall %}{% endfor %}\n",
    "mypkg/__init__.py": "",
    "mypkg/backend.py": '''
from cai.core.config import Knobs
from cai.core.plugin_types import Backend
from cai.core.types import Completion, Score


class Options(Knobs):
    word: str = "hello"


class Echo:
    """No status and no close: both are optional."""

    concurrency = 4

    def __init__(self, options):
        self.options = options
        self.identity = {"engine": "echo", "model": options.word}

    async def complete(self, request):
        asked = request.messages[-1].content
        return Completion(f"{self.options.word} shout {len(asked)} " + " ".join(asked.split()[-12:]))

    async def score(self, request, continuations):
        return tuple(Score(-1.0 - number, 3) for number, _ in enumerate(continuations))


BACKEND = Backend(options=Options, open=Echo, about="repeats the end of what it is asked")
''',
    "mypkg/gate.py": """
from cai.core.plugin_types import Gate


def shouting(seen):
    return "shouts" if "shout" in seen.after else None


GATE = Gate(look=shouting, about="the text shouts", on=("draft", "revision"))
""",
    "mypkg/judge.py": """
from pathlib import Path

from cai.core.config import Knobs
from cai.core.plugin_types import Judge
from cai.core.types import Opinion
from cai.templates.sandbox import Untrusted


class Options(Knobs):
    sure: float = 0.9


async def judge(asked, context, options):
    values = {"left": Untrusted(asked.first), "right": Untrusted(asked.second), "rule": asked.principle}
    odds = await context.odds(values, asked.id, ("(L)", "(R)"))
    return Opinion(options.sure * odds.shares[0], mass=odds.mass)


JUDGE = Judge(
    options=Options, judge=judge, about="left or right", asks="sides",
    offers=frozenset({"left", "right", "rule"}), prompts=Path(__file__).parent / "sides",
)
""",
    "mypkg/sides/small.j2": "{# form: plain\n   variables: [left, right, rule] #}\nLeft: {{ left | plain }}\n"
    "Right: {{ right | plain }}\nRule: {{ rule.compare | plain }}\nBetter side:",
    "mypkg/check.py": """
from cai.core.config import Knobs
from cai.core.plugin_types import Check, Finding, Kind


class Options(Knobs):
    shouting: float = 0.5


class Shouting:
    def __init__(self, options):
        self.options, self.rows, self.loud = options, 0, []

    def add(self, seen):
        self.rows += 1
        self.loud += [seen.pair.id] if "shout" in seen.pair.chosen else []

    def findings(self):
        share = len(self.loud) / max(1, self.rows)
        yield Finding("shouting", "shouting", share, None, None, self.options.shouting, share <= self.options.shouting,
                      n=self.rows, rows=len(self.loud), examples=tuple(self.loud[:3]))


CHECK = Check(open=Shouting, kinds={"shouting": Kind("warning", "chosen shouts: soften it")}, options=Options,
              about="chosen answers that shout")
""",
    "mypkg/format.py": """
from cai.core.plugin_types import Format


def rows(export):
    for pair in export.pairs():
        yield export.split(pair.prompt), {"better": pair.chosen, "worse": pair.rejected}


FORMAT = Format(rows=rows, columns={"better": "text", "worse": "text"}, about="two columns", file="jsonl")
""",
    "mypkg/method.py": """
from cai.core.config import Knobs
from cai.core.plugin_types import Method
from cai.train.trl.options import TrainingOptions


class Options(TrainingOptions):
    words: int = 3


def train(job, options):
    (job.out / "model").mkdir(parents=True)
    (job.out / "model" / "config.json").write_text("{}")
    job.log({"step": 1, "loss": 0.5})
    return {"rows": len(job.rows), "words": options.words}


METHOD = Method(rows="pairs", options=Options, train=train, about="learns nothing")
""",
    "mypkg/probe.py": """
from cai.audit.measure import planted
from cai.audit.measure.finding import Measured, Tolerance, group, measured_finding
from cai.core.config import Knobs
from cai.core.plugin_types import Probe


class Options(Knobs):
    threshold: float = 0.1


def pairs(exhibit, options):
    rows = [Measured(c.id, group(c.prompt), c.answer.count("!") - c.other.count("!")) for c in exhibit.cases]
    yield measured_finding("shouting", "exclamation marks", rows, Tolerance(options.threshold))


PROBE = Probe(
    looks={"pairs": pairs}, options=Options, about="counts !", effect={"pairs": "0.5 more"},
    planted=lambda subject, seed: planted.worded(seed, "Yes!", usual=0.1, more=0.5),
    clean=lambda subject, seed: planted.worded(seed, "Yes!", usual=0.2),
)
""",
    "recipe.yaml": """\
constitution: mine.yaml
prompts: asked.jsonl
writer: {backend: "mypkg.backend:BACKEND", word: hi}
templates: {draft: own, critique: small, revise: small}
critique: {rounds: 1}
gates: {"mypkg.gate:GATE": tag, near_identical: null, meta: null, roles: null, repetition: null, language: null}
judge: {method: "mypkg.judge:JUDGE", sure: 0.8}
export: {formats: ["mypkg.format:FORMAT"]}
audit: {"mypkg.probe:PROBE": {threshold: 0.2}}
checks: ["mypkg.check:CHECK"]
max_failure_share: 1
""",
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    rows = [{"id": f"p{n}", "prompt": f"Tell me plainly about thing number {n}, please."} for n in range(40)]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def cai(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in `folder`, with nothing but the installed packages on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.remove(''); from cai.cli.main import main; main()",
        *arguments,
    ]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_recipe_whose_every_part_comes_from_another_package_runs(work: Path) -> None:
    done = cai(work, "run", "recipe.yaml", "--name", "all", "--quiet")
    assert done.returncode == 0, done.stderr
    run = work / "runs" / "all"
    manifest = Manifest.read(run)
    assert manifest.models["writer"] == {"engine": "echo", "model": "hi"}
    assert manifest.gates["mypkg.gate:GATE"]["tag"] > 0
    assert manifest.judge
    assert manifest.judge.by[0].method == "mypkg.judge:JUDGE"
    assert manifest.judge.by[0].template.name == "sides/small"
    rows = [json.loads(line) for line in (run / "export" / "mypkg.format.FORMAT" / "train.jsonl").open()]
    assert set(rows[0]) == {"better", "worse"}
    audits = json.loads((run / "findings.json").read_text())["audits"]
    assert {one["probe"] for audit in audits for one in audit["findings"]} == {"shouting"}
    assert [audit["of"] for audit in audits] == ["pairs", "checks"]
    assert "mypkg" not in done.stderr


def test_a_check_of_ones_own_joins_the_command(work: Path) -> None:
    cai(work, "run", "recipe.yaml", "--name", "all", "--quiet")
    done = cai(work, "check", "all", "--check", "mypkg.check:CHECK", "-o", "shouting=0.01")
    assert done.returncode == 100
    assert re.search(r"warn +shouting|shouting +1?\d+\.0 %", done.stdout), done.stdout


@pytest.mark.slow
def test_a_training_method_of_ones_own_trains(work: Path) -> None:
    from tiny import tiny_model

    cai(work, "run", "recipe.yaml", "--name", "all", "--quiet")
    tiny_model(work / "tiny")
    done = cai(work, "train", "mypkg.method:METHOD", "runs/all", "--model", "tiny", "-o", "words=5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"]["words"] == 5


def test_the_table_of_contributing_names_each_of_them() -> None:
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:a|an) ([\w ]+?) \|", page, re.MULTILINE)
    assert rows == ["principle", "template set", "backend", "gate", "judge", "check", "format", "method", "probe"]


# --- No code of the working folder ------------------------------------------------------------------------------------

TRAP = "import pathlib; pathlib.Path('executed').write_text('x')\n"
SHADOWS = (
    "json",
    "yaml",
    "typer",
    "rich",
    "torch",
    "sitecustomize",
    "usercustomize",
    "mypkg",
    "pydantic",
    "cai_plugin",
)


@pytest.fixture
def trapped(work: Path, tmp_path: Path) -> Path:
    """A folder with modules that leave a mark when they are executed, named like ours, Python's and the recipe's."""
    for name in ("mine.yaml", "asked.jsonl", "recipe.yaml"):
        (tmp_path / name).write_text(FILES.get(name) or (work / name).read_text())
    (tmp_path / "prompts" / "draft").mkdir(parents=True)
    (tmp_path / "prompts" / "draft" / "own.j2").write_text(FILES["prompts/draft/own.j2"])
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    return tmp_path


COMMANDS = [
    ("constitution", "lint", "mine.yaml"),
    ("constitution", "show", "mine.yaml"),
    ("constitution", "diff", "mine.yaml", "mine.yaml"),
    ("check", "pairs.jsonl"),
    ("show", "nothing"),
    ("run", "recipe.yaml", "--dry-run"),
]


@pytest.mark.parametrize("module", [False, True], ids=["cai", "python -m cai"])
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_commands_that_only_look_execute_no_file_of_the_folder(
    trapped: Path, arguments: tuple[str, ...], module: bool
) -> None:
    if module:
        done = subprocess.run(
            [sys.executable, "-m", "cai", *arguments], cwd=trapped, capture_output=True, text=True, check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )  # fmt: skip
    else:
        done = cai(trapped, *arguments)
    assert not (trapped / "executed").exists(), done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


def test_a_dry_run_says_what_it_did_not_load(work: Path, tmp_path: Path) -> None:
    done = cai(work, "run", "recipe.yaml", "--name", "dry", "--dry-run")
    assert done.returncode == 0, done.stderr
    for name in ("backend:BACKEND", "judge:JUDGE", "gate:GATE", "probe:PROBE", "check:CHECK"):
        assert f"not loaded: mypkg.{name}" in done.stdout
    assert "40 prompts: 0 calls are answered already, at most" in done.stdout


def test_a_module_of_the_folder_never_replaces_an_installed_one(work: Path, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "asked.jsonl").write_text((work / "asked.jsonl").read_text())
    for name in ("numpy", "scipy", "aiohttp", "jinja2", "sqlite3"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    done = cai(tmp_path, "run", "recipe.yaml", "--name", "all", "--quiet")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists()
