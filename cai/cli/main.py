"""The command line: parse, call one verb, print. The only room that prints.

Every import of the package happens inside a command, so that `cai --help` answers at once and a command that needs
no model never loads one.

Left out on purpose: doing anything. What a verb does is in `pipeline` and the rooms below it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cai.cli.audit import audits
from cai.cli.check import command as check_pairs
from cai.cli.constitution import laws
from cai.cli.endpoints import carried, mock_server
from cai.cli.judge_card import judge_card
from cai.cli.push import push
from cai.cli.redteam import teams
from cai.cli.train import iterate, score, train
from cai.core.errors import CaiError, GateFailed, Mistake

if TYPE_CHECKING:
    from cai.core.types import Trace
    from cai.runs.budget import Budget
    from cai.runs.folder import Manifest, Run
    from cai.runs.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Constitutional AI and RLAIF: a constitution in, a preference dataset you can defend out.",
)  # fmt: skip
app.add_typer(laws, name="constitution")
app.add_typer(audits, name="audit")
app.add_typer(teams, name="redteam")
app.add_typer(carried, name="requests")
app.command(name="mock-server")(mock_server)
app.command(name="judge-card")(judge_card)
app.command(name="push")(push)
app.command(name="check")(check_pairs)
app.command(name="train")(train)
app.command(name="iterate")(iterate)
app.command(name="score")(score)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a shipped recipe: demo, default.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.")]
MaxCalls = Annotated[int | None, typer.Option(min=0, help="Stop before more new calls than this are asked.")]
MaxTokens = Annotated[int | None, typer.Option(min=0, help="Stop before new calls can use more tokens than this.")]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Stop before new calls can cost more than this.")]
Overrides = Annotated[list[str], typer.Option("-o", help="Set a key of the recipe: -o critique.rounds=4.")]
Runs = Annotated[Path, typer.Option("--runs", help="The folder that holds runs and their journal.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["CAI_DEBUG"] = "1"


@app.command()
def run(
    recipe: RecipeName,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; the recipe's, if not given.")] = None,
    runs: Runs = Path("runs"),
    override: Overrides = [],  # noqa: B006 (typer copies it)
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls, tokens and cost; ask nothing.")] = False,
    sample: Annotated[int, typer.Option(min=0, help="With --dry-run: ask this many prompts to measure by.")] = 0,
    batch: Annotated[
        bool, typer.Option("--batch", help="Ask by the vendor's batches: half the price, hours later.")
    ] = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Do what a recipe says. The same command again resumes: what was answered is not asked again."""
    import asyncio

    from cai.pipeline import generate as pipeline
    from cai.pipeline import run as course
    from cai.runs import recipe as recipes
    from cai.runs.budget import Budget

    chosen, where = _opened(recipe, name, runs, override)
    if batch:
        chosen = recipes.by_batch(chosen, runs / "batches")
    if dry_run:
        course.check(chosen)
        return _say_estimate(asyncio.run(pipeline.estimate(chosen, where, sample)), as_json)
    _run_to_the_end(chosen, where, Budget(max_calls, max_tokens, max_cost), quiet, as_json)


@app.command()
def retry(
    run: RunName,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Ask again what failed in a run, and nothing else."""
    from cai.constitution import principles as constitution
    from cai.runs import recipe
    from cai.runs.budget import Budget

    where = _run(run)
    said = where.manifest
    chosen = recipe.load(where.path / "recipe.yaml")
    if constitution.load(chosen.constitution).digest != said["constitution"]["digest"]:
        fix = "run the recipe to see what the change makes of it"
        raise Mistake(
            chosen.constitution, f"has changed since {where.path} was made, so more than failures is new", fix
        )
    _run_to_the_end(chosen, where, Budget(max_calls, max_tokens, max_cost), quiet, as_json)


@app.command()
def failures(run: RunName, as_json: Json = False) -> None:
    """What did not come out of a run, by kind, with what to do about each."""
    from dataclasses import asdict

    from cai.cli import show as screen

    where = _run(run)
    if as_json:
        print(json.dumps([asdict(failure) for failure in where.failures()]))
        return
    for line in screen.losses(where.failures()):
        print(line)


@app.command(name="try")
def try_(
    prompt: Annotated[str, typer.Argument(help="A prompt to try the recipe on.")],
    recipe: Annotated[str, typer.Option("--recipe", help="A YAML file, or a shipped recipe.")] = "demo",
    runs: Runs = Path("runs"),
    override: Overrides = [],  # noqa: B006 (typer copies it)
) -> None:
    """Show what a recipe makes of one prompt: draft, critiques, revisions with what changed."""
    import asyncio

    from cai.core.types import Failure
    from cai.pipeline import generate as pipeline

    chosen, where = _opened(recipe, "try", runs, override)
    trace = asyncio.run(pipeline.one(chosen, where, prompt))
    if isinstance(trace, Failure):
        raise CaiError(f"{trace.stage} failed: {trace.kind}: {trace.message}")
    _tell(trace)


@app.command()
def show(
    run: RunName,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A prompt's id: show its whole life.")] = None,
    as_json: Json = False,
) -> None:
    """What a run did, or one prompt's draft, critiques and revisions with what changed."""
    from dataclasses import asdict

    where = _run(run)
    if id is None:
        return _say(where.manifest, where, as_json)
    found = [trace for trace in where.traces() if trace.prompt.id == id]
    lost = [failure for failure in where.failures() if failure.id == id]
    if not found and not lost:
        raise Mistake(str(where.path), f"has no prompt {id!r}", "ids are in traces.jsonl and report.html")
    if as_json:
        print(json.dumps({"traces": [asdict(row) for row in found], "failures": [asdict(row) for row in lost]}))
        return
    for trace in found:
        _tell(trace)
    for failure in lost:
        print(_safe(f"not in the rows: {failure.stage}: {failure.kind}: {failure.message}"))


@app.command()
def export(
    run: RunName,
    formats: Annotated[list[str], typer.Argument(metavar="[FORMAT]...", help="Formats; the recipe's if none.")] = [],  # noqa: B006
    check: Annotated[
        bool, typer.Option("--check", help="Render what is written with a chat template; find damage.")
    ] = False,
    tokenizer: Annotated[str, typer.Option(help="For --check: a known model, a Hugging Face id or a folder.")] = "",
    max_length: Annotated[int, typer.Option(min=8, help="For --check: tokens that a trainer will keep.")] = 1024,
    as_json: Json = False,
) -> None:
    """Write a run's rows in the shapes that trainers read, or check what was written."""
    from cai.cli import show as screen
    from cai.pipeline import generate as pipeline
    from cai.runs import recipe

    where = _run(run)
    chosen = recipe.load(where.finished / "recipe.yaml")
    names = tuple(formats) or chosen.export.formats
    if check:
        return _check_exports(where, names, tokenizer, max_length, as_json)
    written = pipeline.export(chosen, where, names)
    if as_json:
        print(json.dumps(written))
    for name, splits in {} if as_json else written.items():
        print(f"{where.path / 'export' / name}: {screen.splits(splits)}")


@app.command()
def report(
    run: RunName,
    other: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A second run: what changed from the first.")
    ] = None,
) -> None:
    """Build report.html of a run anew; of two runs, a page of what changed, row by row."""
    from cai.report import compare_page as compare
    from cai.report import run_page as page
    from cai.runs.files import write_text

    where = _run(run)
    if other is None:
        file, built = where.path / "report.html", page.build(where)
    else:
        second = _run(other)
        file, built = second.path / f"against-{where.name}.html", compare.build(where, second)
    write_text(file, built)
    print(file)


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")]) -> None:
    """Lay out a folder to work in: a constitution, templates, prompts and a recipe, all yours to edit."""
    from cai.cli import init as starter

    for path in starter.lay_out(folder):
        print(path)
    print(f"\nnext: cd {folder}, edit constitutions/mine.yaml, then: cai run mine")


def _opened(recipe: str, name: str | None, runs: Path, override: list[str]) -> tuple[Recipe, Run]:
    from cai.runs import recipe as recipes
    from cai.runs.folder import Run, folder

    path = recipes.locate(recipe)
    return recipes.load(path, tuple(override)), Run(folder(runs, name or path.stem))


def _run(name: str) -> Run:
    from cai.runs.folder import Run, folder

    path = Path(name)
    run = Run(path if (path / "manifest.json").exists() or "/" in name else folder(Path("runs"), name))
    _ = run.manifest  # it raises where there is no run
    return run


def _run_to_the_end(chosen: Recipe, where: Run, budget: Budget, quiet: bool, as_json: bool) -> None:
    import asyncio

    from cai.cli.progress import watched
    from cai.pipeline import manifest
    from cai.pipeline import run as course

    try:
        with watched(quiet or as_json) as progress:
            said = asyncio.run(course.run(chosen, where, progress, budget))
    except KeyboardInterrupt:
        _stop(f"interrupted: what is done is in {where.path}; the same command goes on from there", 130)
    _say(said, where, as_json)
    if error := manifest.too_many_failures(chosen, said):
        raise error


def _say_estimate(said: dict[str, float | None], as_json: bool) -> None:
    if as_json:
        print(json.dumps(said))
        return
    print(f"{said['prompts']} prompts: {said['answered']} calls are answered already, at most {said['new']} are new")
    if said["new"] and said["new_tokens"] is None:
        print("tokens and cost are not known before something was answered: add --sample 5 to measure")
    elif said["new"]:
        cost = "not known: give the model a price" if said["new_cost"] is None else f"{said['new_cost']:.2f}"
        print(f"about {said['new_tokens']:,} new tokens, by the mean of the answered calls; cost {cost}")


def _check_exports(where: Run, names: tuple[str, ...], tokenizer: str, max_length: int, as_json: bool) -> None:
    from dataclasses import asdict

    from cai.cli import show as screen
    from cai.pipeline import export_check as check
    from cai.pipeline import generate as pipeline

    folder = pipeline.tokenizer(where, tokenizer)
    found = {name: check.check(where.path / "export" / name, folder, max_length=max_length) for name in names}
    if as_json:
        print(json.dumps({name: asdict(said) for name, said in found.items()}))
    for name, said in {} if as_json else found.items():
        print(f"{name}: {screen.splits(said.rows)}; the longest {said.longest} tokens, {said.max_length} kept")
        for finding in said.findings:
            print(
                f"  {finding.kind}: {_safe(finding.what)} ({finding.rows} rows, such as {', '.join(finding.examples)})"
            )
    if any(finding.fatal for said in found.values() for finding in said.findings):
        raise GateFailed("a trainer would refuse or misread these rows")


def _say(said: Manifest, where: Run, as_json: bool) -> None:
    from cai.cli import show as screen

    print(json.dumps(said, indent=2) if as_json else "\n".join(screen.summary(said, where)))


def _tell(trace: Trace) -> None:
    from rich.console import Console

    from cai.cli import show as screen

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    console = Console(no_color=not colour, highlight=False, soft_wrap=True)
    for text in screen.story(trace, colour=colour):
        console.print(text)


def _safe(text: str) -> str:
    from cai.core.safe_text import safe_text

    return safe_text(text)


def _stop(message: str, code: int) -> NoReturn:
    print(f"cai: {message}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    """The `cai` command: a CaiError is one line and its exit code, a traceback only with --debug."""
    sys.path.insert(0, "")  # so that a recipe can name `my_module:function` in the folder one works in
    try:
        app()
    except CaiError as error:
        if os.environ.get("CAI_DEBUG"):
            raise
        print(f"cai: {_safe(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `cai show RUN | head` is no error
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # ours, not the user's: one line all the same, and how to see the rest
        if os.environ.get("CAI_DEBUG"):
            raise
        print(
            f"cai: internal error: {type(error).__name__}: {_safe(str(error))}; see it whole: cai --debug ...",
            file=sys.stderr,
        )
        sys.exit(1)
