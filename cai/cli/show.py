"""The commands `show`, `failures` and `report`: what a run did."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.arguments import Json, RunName, Runs, open_run
from cai.core.errors import Mistake
from cai.core.safe_text import safe_text


def show_command(
    run: RunName,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A prompt's id: show its whole trace.")] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """What a run did, or one prompt's draft, critiques and revisions with what changed."""
    from cai.cli.text import print_manifest, print_trace

    found = open_run(run, runs)
    if id is None:
        return print_manifest(found.manifest, found, as_json)
    traces = [trace for trace in found.traces() if trace.prompt.id == id]
    failures = [failure for failure in found.failures() if failure.id == id]
    if not traces and not failures:
        raise Mistake(str(found.path), f"has no prompt {id!r}", "ids are in traces.jsonl and report.html")
    if as_json:
        print(json.dumps({"traces": [asdict(row) for row in traces], "failures": [asdict(row) for row in failures]}))
        return
    for trace in traces:
        print_trace(trace)
    for failure in failures:
        print(safe_text(f"not in the rows: {failure.stage}: {failure.kind}: {failure.message}"))


def failures_command(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """What did not come out of a run, by kind, with what to do about each."""
    from cai.cli.text import failure_lines

    found = open_run(run, runs)
    if as_json:
        print(json.dumps([asdict(failure) for failure in found.failures()]))
        return
    for line in failure_lines(found.failures()):
        print(line)


def report_command(
    run: RunName,
    other: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A second run: what changed from the first.")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Build report.html of a run anew; of two runs, a page of what changed, row by row."""
    from cai.report.compare_page import compare_runs_page
    from cai.report.run_page import run_page
    from cai.runs.files import write_text

    found = open_run(run, runs)
    if other is None:
        file, page = found.path / "report.html", run_page(found)
    else:
        second = open_run(other, runs)
        file, page = second.path / f"against-{found.name}.html", compare_runs_page(found, second)
    write_text(file, page)
    print(file)
