"""The commands `mock-server` and `requests`: a server to try recipes on, and files for offline engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cai.core.errors import Mistake

requests = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Questions to a file, answers from one.")
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a shipped recipe.")]
File = Annotated[Path, typer.Argument(metavar="FILE")]
Runs = Annotated[Path, typer.Option("--runs", help="The folder that holds runs and their journal.")]
Overrides = Annotated[list[str], typer.Option("-o", help="Set a key of the recipe.")]


def mock_server_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    latency: Annotated[float, typer.Option(min=0, help="Seconds that an answer takes.")] = 0.02,
    fault: Annotated[list[str], typer.Option("--fault", help="KIND=RATE, such as 429=0.1 or empty=0.01.")] = [],
    retry_after: Annotated[float | None, typer.Option(help="Seconds that a 429 names.")] = None,
    stall: Annotated[float, typer.Option(min=0, help="Seconds that a stalled answer takes.")] = 30.0,
    capacity: Annotated[int | None, typer.Option(min=1, help="Requests served at once; more get a 429.")] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Let more than the capacity wait instead.")] = False,
    key: Annotated[str | None, typer.Option(help="Ask for this key.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other faults.")] = 0,
    replay: Annotated[
        Path | None, typer.Option(help="A recorded answer to give: a file of {status, headers, body}.")
    ] = None,
    replay_if: Annotated[str, typer.Option(help="Give it only to requests that hold this text.")] = "",
    replay_first: Annotated[int | None, typer.Option(min=1, help="Give it only to so many requests.")] = None,
) -> None:
    """Serve made-up answers like an OpenAI or Anthropic endpoint, faults and all: to try a recipe without a key."""
    from cai.backends.mock.server import serve
    from cai.backends.mock.state import Options
    from cai.core.config import Document, parse_options, parse_yaml

    rates: dict[str, object] = {}
    for each in fault:
        kind, _, rate = each.partition("=")
        rates[kind] = parse_yaml(f"v: {rate or 'missing'}", f"--fault {each}").data["v"]
    given = {"port": port, "latency": latency, "faults": rates, "retry_after": retry_after, "stall": stall}
    given |= {"capacity": capacity, "queue": queue, "key": key, "seed": seed}
    given |= {"replay": replay, "replay_if": replay_if, "replay_first": replay_first}
    options = parse_options(Document("--fault", given, None), Options)
    serve(options, lambda url: print(f"base_url: {url}  (counts: {url.removesuffix('/v1')}/stats)", flush=True))


@requests.command("export")
def export_requests_command(
    recipe: RecipeName, file: File, runs: Runs = Path("runs"), override: Overrides = []
) -> None:
    """Write every question that can be asked now, as a batch file."""
    import asyncio

    from cai.pipeline.requests import export_requests
    from cai.runs.folder import Run
    from cai.runs.recipe import load_recipe

    if file.exists():
        raise Mistake(str(file), "is there already", "choose another name")
    chosen = load_recipe(recipe, tuple(override))
    count = asyncio.run(export_requests(chosen, Run(runs / "requests"), file))
    print(f"{file}: {count} questions" if count else "nothing is left to ask: cai run")


@requests.command("import")
def import_requests_command(
    recipe: RecipeName, file: File, runs: Runs = Path("runs"), override: Overrides = []
) -> None:
    """Put the answers in a batch's output file into the journal."""
    import asyncio

    from cai.core.safe_text import safe_text
    from cai.pipeline.requests import bring_in
    from cai.runs.folder import Run
    from cai.runs.recipe import load_recipe

    chosen = load_recipe(recipe, tuple(override))
    used, unwanted, errors = asyncio.run(bring_in(chosen, Run(runs / "requests"), file))
    others = f", {unwanted} belong to no question of this recipe" if unwanted else ""
    print(f"{used} answers are in the journal{others}")
    for error in errors[:10]:
        print(safe_text(error), file=sys.stderr)
    if errors:
        print(f"{len(errors)} questions have no answer: export them again", file=sys.stderr)
