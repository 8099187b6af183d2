"""Request files for offline engines: out stage by stage, answers in, and then a run that has nothing left to ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from cai.core.errors import Mistake
from cai.pipeline.generate import generate
from cai.pipeline.requests import bring_in, export_requests
from cai.runs.folder import Run


def engine(questions: Path, *, lose: int = 0) -> Path:
    """What an offline engine makes of a request file: answers in another order, some lost."""
    answers = []
    for row in questions.read_bytes().splitlines():
        asked = from_json(row)
        assert asked["url"] == "/v1/chat/completions"
        text = f"An answer to question {asked['custom_id'][:12]}, in so many words as it takes."
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 12}}
        answers.append({"custom_id": asked["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
    for answer in answers[:lose]:
        answer["response"], answer["error"] = None, {"message": "out of memory"}
    out = questions.with_suffix(".out")
    out.write_bytes(b"\n".join(to_json(answer) for answer in reversed(answers)))
    return out


async def test_three_files_make_a_whole_run(recipe_of: Any, tmp_path: Path) -> None:
    writer = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    recipe, where = recipe_of(writer=writer, templates="large", critique={"rounds": 1}), Run(tmp_path / "runs" / "x")
    for stage in ("drafts", "critiques", "revisions"):
        file = tmp_path / f"{stage}.jsonl"
        assert await export_requests(recipe, where, file) == 20
        assert await bring_in(recipe, where, engine(file)) == (20, 0, [])
    assert await export_requests(recipe, where, tmp_path / "nothing.jsonl") == 0
    said = (await generate(recipe, where)).as_json()  # nobody listens at port 9
    assert said["calls"]["writer"]["asked"] == 0
    assert said["counts"]["revise"]["out"] == 20


async def test_what_the_engine_lost_is_exported_again(recipe_of: Any, tmp_path: Path) -> None:
    writer = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    recipe, where = recipe_of(writer=writer, templates="large", critique={"rounds": 1}), Run(tmp_path / "runs" / "x")
    file = tmp_path / "drafts.jsonl"
    await export_requests(recipe, where, file)
    used, unwanted, errors = await bring_in(recipe, where, engine(file, lose=3))
    assert (used, unwanted, len(errors)) == (17, 0, 3)
    assert "out of memory" in errors[0]
    assert await export_requests(recipe, where, tmp_path / "again.jsonl") == 20  # 3 drafts, 17 critiques


async def test_a_model_without_a_request_file_and_a_wrong_file_are_one_line(recipe_of: Any, tmp_path: Path) -> None:
    where = Run(tmp_path / "runs" / "x")
    with pytest.raises(Mistake, match="has no request file"):
        await export_requests(recipe_of(), where, tmp_path / "x.jsonl")
    recipe = recipe_of(
        writer={"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}, templates="large"
    )
    (tmp_path / "bad.jsonl").write_text("not json\n")
    with pytest.raises(Mistake, match="holds no results"):
        await bring_in(recipe, where, tmp_path / "bad.jsonl")
