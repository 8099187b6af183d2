"""The command `check`: what is wrong with preference pairs of any format."""

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


def check_command(files: Files, override: Settings = [], as_json: Json = False) -> None:
    """Find what is wrong with preference pairs of any format; exit 100 where something is past its threshold."""
    from dataclasses import asdict

    from cai.checks.run.check import check_pairs
    from cai.checks.run.options import check_options
    from cai.cli.check_table import check_lines

    said = check_pairs(files, check_options(override))
    print(json.dumps(asdict(said)) if as_json else "\n".join(check_lines(said)))
    if missed := [finding.name for finding in said.findings if not finding.passed]:
        raise GateFailed(f"{len(missed)} of {len(said.findings)} findings are past their thresholds")
