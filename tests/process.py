"""Runs `cai` in a fresh process, and says which modules a piece of code loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "trl", "datasets", "peft", "accelerate")
TESTS = os.pathsep.join(str(folder) for folder in [Path(__file__).parent, *Path(__file__).parent.glob("*/")])


def cai(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`cai` in a process of its own, in `folder`, with the test scripts importable."""
    return subprocess.run(
        [sys.executable, "-c", "from cai.cli.main import main; main()", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": TESTS} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def loaded_by(code: str) -> set[str]:
    """The top-level modules that `code` leaves loaded in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sorted(sys.modules))"],
        capture_output=True, text=True, check=True, cwd=ROOT, env={"PATH": "", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}
