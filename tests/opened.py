"""Fixtures of the tests that ask a model in this process: `pytest_plugins = ["opened"]`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cai.backends.local.options import LocalOptions
from cai.backends.transformers import BACKEND
from cai.core.errors import Mistake


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import tiny_model

    return tiny_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
async def opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[..., Any]]:
    """Opens models and closes them after the test; only the embedded one uses the cache folder of this machine."""
    if "embedded" not in request.fixturenames:
        monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    models: list[Any] = []

    def open_one(model: Path | str, **options: Any) -> Any:
        models.append(BACKEND.open(LocalOptions(model=str(model), **{"dtype": "float32", "device": "cpu"} | options)))
        return models[-1]

    yield open_one
    for model in models:
        await model.close()


@pytest.fixture
def embedded() -> str:
    from cai.backends.local.weights import find_weights

    try:
        find_weights("smollm2-135m-instruct")
    except Mistake as mistake:
        pytest.skip(f"the embedded model cannot be had here: {mistake}")
    return "smollm2-135m-instruct"
