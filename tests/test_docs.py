"""What the README and the docs show, done: recipes load, constitutions are in order, Python runs, commands work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cai.constitution.lint import lint
from cai.core.config import parse_options, parse_yaml
from cai.runs.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SET_UP = ("make ", "pip ", "git ", "python bench/")


def blocks(*languages: str) -> list[object]:
    """Every code block in these languages, named by its page and number."""
    found = []
    for page in PAGES:
        for number, block in enumerate(BLOCK.finditer(page.read_text("utf-8")), 1):
            if block[1] in languages:
                found.append(pytest.param(block[2], id=f"{page.name}-{number}"))
    return found


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_on_a_page_is_a_recipe_or_a_constitution_in_order(text: str, tmp_path: Path) -> None:
    if re.search(r"^principles:", text, re.MULTILINE):
        (tmp_path / "c.yaml").write_text(text)
        assert [str(problem) for problem in lint(tmp_path / "c.yaml") if problem.level == "error"] == []
    else:
        parse_options(parse_yaml(text, "page"), Recipe)


@pytest.mark.parametrize("text", blocks("python"))
def test_python_on_a_page_runs(text: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("text", blocks("bash"))
def test_commands_on_a_page_work_in_an_empty_folder(text: str, tmp_path: Path) -> None:
    lines = [line for line in text.splitlines() if not line.startswith(SET_UP)]
    folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": folder + os.pathsep + os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_relative_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
