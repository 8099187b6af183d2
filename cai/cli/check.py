"""The command `check`: what is wrong with preference pairs of any format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.arguments import Json, Runs
from cai.core.errors import GateFailed

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files of preference pairs, a folder with splits, or a run.")
]
Settings = Annotated[list[str], typer.Option("-o", help="Set a threshold or option: -o identical=0.01.")]
Checks = Annotated[list[str], typer.Option("--check", help="A check of your own: pkg.module:CHECK. May be repeated.")]


def check_command(
    files: Files, override: Settings = [], check: Checks = [], runs: Runs = Path("runs"), as_json: Json = False
) -> None:
    """Find what is wrong with preference pairs of any format; exit 100 where something is past its threshold."""
    from dataclasses import asdict

    from cai.checks.run.check import check_pairs
    from cai.checks.run.options import check_options, open_checks
    from cai.cli.check_table import check_lines
    from cai.runs.folder import resolve_data

    checks = open_checks(check)
    paths = [resolve_data(path, runs) for path in files]
    found = check_pairs(paths, check_options(override, checks), checks=checks)
    print(json.dumps(asdict(found)) if as_json else "\n".join(check_lines(found)))
    if missed := [finding.what for finding in found.findings if not finding.passed]:
        raise GateFailed(f"{len(missed)} of {len(found.findings)} findings are past their thresholds")
