"""Shared by all tests: a small recipe on the scripted model, and the place of the published data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that recipes can name `scripts:steady`

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _same_fences(monkeypatch: pytest.MonkeyPatch) -> None:
    """One secret for all runs, so that runs in different folders ask the same questions."""
    monkeypatch.setenv("CAI_FENCE_SECRET", "5a" * 32)


@pytest.fixture
def data() -> Path:
    """Published prompts and pairs; only some machines have them."""
    if not DATA.is_dir():
        pytest.skip("the published data is not on this machine")
    return DATA


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"What is thing {n}?"}) + "\n" for n in range(20)))
    return path


@pytest.fixture
def recipe_of(prompts_file: Path) -> Any:
    """A recipe on the scripted model, with any keys changed."""
    from cai.runs.recipe import Recipe

    def make(script: str = "scripts:steady", **changed: Any) -> Recipe:
        keys: dict[str, Any] = {
            "constitution": "default",
            "prompts": str(prompts_file),
            "writer": {"backend": "scripted", "script": script},
            "templates": "small",
            "critique": {"rounds": 2},
            "export": {"formats": []},
        }
        return Recipe.model_validate(keys | changed)

    return make
