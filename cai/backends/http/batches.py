"""A model asked by batches, at half the price and hours later: questions are gathered until none comes, and handed in.

Since every prompt of a run waits for its own answer, a batch is a stage: first all drafts, then all critiques, then all
revisions. Which batch holds which question is on disk before the first poll, so a kill costs nothing: the next start
asks for the same questions and finds them handed in. What a batch did not answer (an error, an expiry, a part missing)
is put into the next one, a few times.

Left out on purpose: the journal. An answer is kept there like any other, and a question it knows never comes here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from cai.backends.http.batch_api import BatchApi, custom_id
from cai.backends.http.client import EndpointClient
from cai.backends.http.retry import Retry
from cai.core.errors import Mistake, Refused, Transient
from cai.core.types import Completion, Request, Score
from cai.runs import folder as runs

QUIET = 1.0
"""Seconds without a new question after which a batch is handed in."""
MOST = 20_000
"""Questions of one batch, and prompts under way at once."""
MOST_BYTES = 90 << 20
"""Of one batch's file."""
TRIES = 3
"""Batches that a question may be put into."""


@dataclass(slots=True)
class _Question:
    path: str
    body: dict[str, Any]
    answer: asyncio.Future[Any]
    tries: int = 0


class Batches:
    """A Model whose questions travel in batches."""

    concurrency = MOST

    def __init__(self, remote: EndpointClient, desk: BatchApi, folder: Path, poll: float) -> None:
        self.identity = remote.identity
        self._remote, self._desk, self._folder, self._poll = remote, desk, folder, poll
        self._retry = Retry()
        self._open: dict[str, _Question] = {}
        self._new: list[str] = []
        self._handed_in = self._known()
        self._earlier = set(self._handed_in.values())
        self._kept: dict[str, Any] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._watching: dict[str, asyncio.Task[None]] = {}

    async def complete(self, request: Request) -> Completion:
        """One answer, once its batch is done. Raises Transient after TRIES batches without one."""
        path, body = self._remote.put(request)
        id = custom_id(path, body, request.seed)
        if id in self._kept:
            return self._remote.read(self._kept.pop(id))
        question = self._open.get(id)
        if question is None:
            question = self._open[id] = _Question(path, body, asyncio.get_running_loop().create_future())
            self._wait_for(id)
        try:
            return self._remote.read(await asyncio.shield(question.answer))
        finally:
            self._open.pop(id, None)

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Not possible."""
        raise Mistake("--batch", "a batch gives no log-probabilities of given texts", "leave out --batch")

    def status(self) -> dict[str, float]:
        """Questions that wait, and batches under way."""
        return {"waiting": float(len(self._open)), "batches": float(len(self._watching))}

    async def close(self) -> None:
        """Stop watching; what was handed in stays handed in."""
        if self._timer:
            self._timer.cancel()
        for task in self._watching.values():
            task.cancel()
        await asyncio.gather(*self._watching.values(), return_exceptions=True)
        await self._remote.close()

    def _wait_for(self, id: str) -> None:
        if batch := self._handed_in.get(id):
            self._watch(batch, [id])
            return
        self._new.append(id)
        if self._timer:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(0 if len(self._new) >= MOST else QUIET, self._hand_in)

    def _hand_in(self) -> None:
        waiting, self._new, self._timer = self._new, [], None
        for path in {self._open[id].path for id in waiting if id in self._open}:
            ids = [id for id in waiting if id in self._open and self._open[id].path == path]
            for part in self._parts(ids):
                name = f"new-{part[0][:16]}"
                self._watching[name] = asyncio.create_task(self._guarded(name, part, self._send(path, part)))

    def _parts(self, ids: list[str]) -> list[list[str]]:
        parts, size = list[list[str]](), MOST_BYTES
        for id in ids:
            length = len(to_json(self._open[id].body)) + 200
            if size + length > MOST_BYTES or len(parts[-1]) >= MOST:
                parts.append([])
                size = 0
            parts[-1].append(id)
            size += length
        return parts

    async def _send(self, path: str, ids: list[str]) -> None:
        questions = [(id, self._open[id].body) for id in ids]
        batch = await self._retry(lambda: self._desk.hand_in(path, questions))
        place = {"endpoint": self.identity["endpoint"], "batch": batch, "ids": ids}
        runs.write_json(self._folder / f"{hashlib.sha256(batch.encode()).hexdigest()[:16]}.json", place)
        self._handed_in |= dict.fromkeys(ids, batch)
        self._watch(batch, ids)

    def _watch(self, batch: str, ids: list[str]) -> None:
        if batch not in self._watching:
            self._watching[batch] = asyncio.create_task(self._guarded(batch, ids, self._collect(batch)))

    async def _guarded(self, name: str, ids: list[str], work: Any) -> None:
        try:
            await work
        except Exception as error:  # whatever it is, those who wait for this batch must hear of it
            everyone = [id for id in (*ids, *self._in(name)) if id in self._open]
            for id in everyone:
                if not self._open[id].answer.done():
                    self._open[id].answer.set_exception(error)
        finally:
            self._watching.pop(name, None)

    async def _collect(self, batch: str) -> None:
        answers, errors = dict[str, Any](), dict[str, str]()
        for place in await self._ended(batch):
            for result in await self._retry(partial(self._desk.results, place)):
                if result.error:
                    errors[result.id] = result.error
                else:
                    answers.setdefault(result.id, result.answer)
        for id in self._in(batch):
            question = self._open.get(id)
            if id not in answers:
                self._handed_in.pop(id)  # whoever asks again is put into another batch
                if question and not question.answer.done():
                    self._again(id, question, errors.get(id, "the batch ended without it"))
            elif question is None:
                self._kept[id] = answers[id]  # this sitting has not come to ask it yet
            elif not question.answer.done():
                question.answer.set_result(answers[id])

    async def _ended(self, batch: str) -> tuple[str, ...]:
        """Where its results are, as soon as it has ended; nowhere, if the vendor has forgotten an old one."""
        try:
            while (places := await self._retry(partial(self._desk.done, batch))) is None:  # noqa: ASYNC110
                await asyncio.sleep(self._poll)
        except Refused:
            if batch not in self._earlier:
                raise
            return ()
        return places

    def _again(self, id: str, question: _Question, why: str) -> None:
        question.tries += 1
        if question.tries >= TRIES:
            question.answer.set_exception(Transient("batch", f"no answer in {TRIES} batches: {why}", attempts=TRIES))
        else:
            self._wait_for(id)

    def _in(self, batch: str) -> list[str]:
        return [id for id, held in self._handed_in.items() if held == batch]

    def _known(self) -> dict[str, str]:
        """Question -> batch, of all that earlier sittings handed in at this endpoint."""
        found: dict[str, str] = {}
        for file in sorted(self._folder.glob("*.json")):
            note = json.loads(file.read_text("utf-8"))
            if note["endpoint"] == self.identity["endpoint"]:
                found |= dict.fromkeys(note["ids"], note["batch"])
        return found
