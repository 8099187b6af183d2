"""Questions out to a file and answers in from one, for engines that work without a server (`vllm run-batch`).

The file is the one that OpenAI's batches use. Each export holds what can be asked now: first the drafts; with their
answers imported, the critiques; then the revisions. Imported answers are in the journal like any other, and `cai run`
goes on from there.

Left out on purpose: running the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json

from cai.backends.http.batch_api import batch_line, batch_result, custom_id
from cai.core.errors import Mistake, Permanent
from cai.core.types import Completion, JsonObject, Model, Request, Score
from cai.pipeline.estimate import ask_all
from cai.runs.files import atomic
from cai.runs.folder import Run
from cai.runs.recipe import Recipe


class Carried:
    """A Model whose questions are written to a file, and whose answers come from one."""

    concurrency = 1

    def __init__(self, model: Model, out: IO[bytes] | None, answers: Mapping[str, Any]) -> None:
        if not hasattr(model, "put") or not hasattr(model, "read"):
            what = f"is asked by the {model.identity.get('engine')} backend, which has no request file"
            raise Mistake("cai requests", what, "use backend: openai, with the address that the model would have")
        self.identity = model.identity
        self._model: Any = model
        self._out, self._answers = out, answers
        self.asked: set[str] = set()
        self.found: set[str] = set()

    async def complete(self, request: Request) -> Completion:
        path, body = self._model.put(request)
        id = custom_id(path, body, request.seed)
        if id in self._answers:
            self.found.add(id)
            answer: Completion = self._model.read(self._answers[id], self._model.claim(body))
            return answer
        if self._out and id not in self.asked:
            self._out.write(batch_line(id, path, body))
        self.asked.add(id)
        raise Permanent("unasked", "carried to a file")

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        raise Mistake("cai requests", "a request file holds no questions for log-probabilities", "judge by `sampled`")

    def status(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        await self._model.close()


async def export_requests(recipe: Recipe, run: Run, file: Path) -> int:
    """Write what can be asked now; how many questions that is. Raises Mistake."""
    carried: list[Carried] = []
    with atomic(file) as out:
        await ask_all(recipe, run, lambda model: _kept(carried, Carried(model, out, {})))
    return sum(len(model.asked) for model in carried)


async def bring_in(recipe: Recipe, run: Run, file: Path) -> tuple[int, int, list[str]]:
    """Put a file's answers into the journal: how many were used, how many were not wanted, and what failed."""
    answers, errors = _answers(file)
    carried: list[Carried] = []
    await ask_all(recipe, run, lambda model: _kept(carried, Carried(model, None, answers)))
    used = set().union(*(model.found for model in carried))
    return len(used), len(answers) - len(used), errors


def _answers(file: Path) -> tuple[JsonObject, list[str]]:
    answers, errors = dict[str, Any](), list[str]()
    try:
        for number, row in enumerate(file.read_bytes().splitlines(), 1):
            found = batch_result(from_json(row)) if row.strip() else None
            if found and found.error:
                errors.append(f"{file}:{number}: {found.error}")
            elif found:
                answers[found.id] = found.answer
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Mistake(str(file), f"holds no results: {error}", "give the output file of a batch") from None
    return answers, errors


def _kept(carried: list[Carried], model: Carried) -> Carried:
    carried.append(model)
    return model
