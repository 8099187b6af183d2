"""The command line's `push`: an export of a run to the Hugging Face hub, and first what that would be.

Left out on purpose: pushing unasked. Without `--yes` it only says what it would do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The dataset repository.")],
    format: Annotated[str, typer.Option("--format", help="Which export.")] = "trl",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, nothing is sent.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Of a new repository: for everybody to see.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """Push an export and its card to the Hugging Face hub. Says what it would send; `--yes` sends it."""
    from cai.pipeline import push as publish
    from cai.runs.folder import Run, folder

    where = Run(Path(run) if (Path(run) / "manifest.json").exists() or "/" in run else folder(Path("runs"), run))
    parcel = publish.pack(where, format, repo)
    address = (
        publish.push(parcel, private=not public, message=message or f"cai: {where.name}, {format}") if yes else None
    )
    if as_json:
        files = dict(parcel.files)
        print(json.dumps({"repo": repo, "files": files, "bytes": parcel.size, "pushed": yes, "commit": address}))
        return
    for name, size in parcel.files:
        print(f"{size:>12,}  {name}")
    seen = "public" if public else "private"
    print(
        address
        or f"{parcel.size:,} bytes would go to https://huggingface.co/datasets/{repo} ({seen} if new): add --yes"
    )
