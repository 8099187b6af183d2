"""Arguments and options that several commands share, and how a run is found by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cai.runs.folder import Run

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a shipped recipe: demo, default.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.")]
MaxCalls = Annotated[int | None, typer.Option(min=0, help="Send at most this many requests; a retry is one too.")]
MaxTokens = Annotated[int | None, typer.Option(min=0, help="Stop before new calls can use more tokens than this.")]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Stop before new calls can cost more than this.")]
Overrides = Annotated[list[str], typer.Option("-o", help="Set a key of the recipe: -o critique.rounds=4.")]
Runs = Annotated[Path, typer.Option("--runs", help="The folder that holds runs and their journal.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def open_run(name: str, runs: Path = Path("runs")) -> Run:
    """The run that a folder or a name under `runs` means. Raises Mistake."""
    from cai.runs.folder import Run, resolve_run

    run = Run(resolve_run(Path(name), runs))
    _ = run.manifest  # it raises where there is no run
    return run
