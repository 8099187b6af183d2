"""The command line's `check`: what is wrong with preference pairs of any format. It prints; `cli` takes it in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cai.core.errors import GateFailed

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files of preference pairs, a folder with splits, or a run.")
]
Settings = Annotated[list[str], typer.Option("-o", help="Set a threshold or option: -o identical=0.01.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


def command(files: Files, override: Settings = [], as_json: Json = False) -> None:  # noqa: B006 (typer copies it)
    """Find what is wrong with preference pairs of any format; exit 100 where something is past its threshold."""
    from dataclasses import asdict

    from cai.checks.run import check as hygiene
    from cai.cli.check_table import lines

    said = hygiene.check(files, hygiene.options(override))
    print(json.dumps(asdict(said)) if as_json else "\n".join(lines(said)))
    if missed := [finding.name for finding in said.findings if not finding.passed]:
        raise GateFailed(f"{len(missed)} of {len(said.findings)} findings are past their thresholds")
