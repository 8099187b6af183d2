"""A server that nobody here wrote: `transformers serve` with the embedded model, and whole recipes through it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from cai.core.errors import Mistake
from cai.core.types import Message, Request, Sampling
from cai.pipeline.generate import generate
from cai.runs.folder import Run
from cai.runs.recipe import Recipe

pytestmark = pytest.mark.slow
QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # more threads than cores slow each other down


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Base URL and model of a running `transformers serve`."""
    from cai.backends.local.weights import find_weights

    model = find_weights("smollm2-135m-instruct").folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        model,
        "--device",
        "cpu",
        "--port",
        str(port),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | QUIET)
    try:
        for _ in range(240):
            try:
                with urlopen(f"http://localhost:{port}/health"):
                    break
            except (URLError, OSError):
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.5)
        yield {"base_url": f"http://localhost:{port}/v1", "model": model}
    finally:
        process.kill()
        process.wait()


def recipe(server: dict[str, str]) -> Recipe:
    return Recipe.model_validate(
        {
            "constitution": "concise",
            "prompts": {"path": "everyday", "limit": 2},
            "templates": "small",
            "writer": {"backend": "openai", **server, "concurrency": 2},
            "draft": {"temperature": 0.9, "max_tokens": 16},
            "critique": {"rounds": 1, "examples": 1, "max_tokens": 16},
            "revise": {"max_tokens": 16},
            "export": {"formats": ["trl"]},
        }
    )


async def test_a_whole_recipe_goes_through_and_the_seeds_are_used(server: dict[str, str], tmp_path: Path) -> None:
    stories = []
    for name in ("one", "two"):  # each with a journal of its own
        where = Run(tmp_path / name / "r")
        said = (await generate(recipe(server), where)).as_json()
        assert said["counts"]["draft"]["out"] == 2, list(where.failures())
        assert not {"malformed", "bad_request", "server_error"} & set(said["failures"])
        stories.append([(trace.draft.text, trace.final) for trace in where.traces()])
        assert all(trace.draft.usage.prompt_tokens and trace.draft.usage.completion_tokens for trace in where.traces())
    assert stories[0] == stories[1], "sampled at 0.9, and the same by their seeds"
    assert len({draft for draft, _ in stories[0]}) == 2


async def test_log_probabilities_that_this_server_lacks_are_said_to_be_lacking(server: dict[str, str]) -> None:
    from cai.backends import openai
    from cai.backends.http.endpoint import OpenAIEndpoint

    model = openai.open(OpenAIEndpoint.model_validate({**server, "logprobs": True}))
    asked = Request((Message("user", "Say hello."),), Sampling(0.0, 1.0, 8), plain=False)
    try:
        assert (await model.complete(asked)).text
        with pytest.raises(Mistake, match="log-prob"):
            await model.score(Request((Message("user", "Is it A? Answer:"),), plain=True), (" yes", " no"))
    finally:
        await model.close()
