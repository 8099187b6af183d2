"""A model that is asked through a batch API, at half the price and hours later.

Requests are collected until no new one comes, then submitted as one batch. Since each prompt of a run waits for its own
answer, a batch is a stage: first all drafts, then all critiques, then all revisions. Which batch holds which request is
on disk before the first poll, so a kill costs nothing: the next start makes the same requests and finds them submitted.
What a batch did not answer (an error, an expiry, a missing part) goes into the next one, up to TRIES times.
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
from cai.backends.http.client import Claim, EndpointClient
from cai.backends.http.errors import Suspect
from cai.backends.http.retry import Retry
from cai.core.errors import BudgetReached, Mistake, Refused, Transient
from cai.core.types import Completion, Meter, Request, Score, Usage
from cai.runs.files import write_json

QUIET = 1.0
"""Seconds without a new request after which a batch is submitted."""
MOST = 20_000
"""Requests of one batch, and prompts in progress at once."""
MOST_BYTES = 90 << 20
"""Of one batch's file."""
TRIES = 3
"""Batches that a request may be put into."""


@dataclass(slots=True)
class _Waiting:
    path: str
    body: dict[str, Any]
    answer: asyncio.Future[Any]
    claim: Claim
    tries: int = 0


class Batches:
    """A Model whose requests are sent in batches."""

    concurrency = MOST

    def __init__(self, client: EndpointClient, api: BatchApi, folder: Path, poll: float) -> None:
        """`folder` keeps a note of each submitted batch; `poll` seconds between looks. Raises Mistake."""
        self.identity = client.identity
        self._client, self._api, self._folder, self._poll = client, api, folder, poll
        self._retry = Retry(held=False)
        self._waiting: dict[str, _Waiting] = {}
        self._new: list[str] = []
        self._submitted = self._noted()
        self._earlier = set(self._submitted.values())
        self._kept: dict[str, Any] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def meter(self) -> Meter:
        """Where requests are claimed and booked."""
        return self._client.meter

    @meter.setter
    def meter(self, meter: Meter) -> None:
        self._client.meter = meter

    async def complete(self, request: Request) -> Completion:
        """One answer, once its batch has ended. Raises Transient after TRIES batches without one."""
        path, body = self._client.put(request)
        id = custom_id(path, body, request.seed)
        if id in self._kept:
            return self._client.read(self._kept.pop(id), self._client.claim(body))
        waiting = self._waiting.get(id)
        if waiting is None:
            claim, answer = self._client.claim(body), asyncio.get_running_loop().create_future()
            waiting = self._waiting[id] = _Waiting(path, body, answer, claim)
            self._enqueue(id)
        try:
            return self._client.read(await asyncio.shield(waiting.answer), waiting.claim)
        finally:
            self._waiting.pop(id, None)

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Not possible."""
        raise Mistake("--batch", "a batch gives no log-probabilities of given texts", "leave out --batch")

    def status(self) -> dict[str, float]:
        """Requests that wait, and batches in progress."""
        return {"waiting": float(len(self._waiting)), "batches": float(len(self._tasks))}

    async def close(self) -> None:
        """Stop polling; submitted batches go on at the vendor."""
        if self._timer:
            self._timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        try:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        finally:
            await self._client.close()

    def _enqueue(self, id: str) -> None:
        if batch := self._submitted.get(id):
            self._watch(batch, [id])
            return
        self._new.append(id)
        if self._timer:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(0 if len(self._new) >= MOST else QUIET, self._submit_new)

    def _submit_new(self) -> None:
        new, self._new, self._timer = self._new, [], None
        for path in {self._waiting[id].path for id in new if id in self._waiting}:
            ids = [id for id in new if id in self._waiting and self._waiting[id].path == path]
            for part in self._parts(ids):
                name = f"new-{part[0][:16]}"
                self._tasks[name] = asyncio.create_task(self._guarded(name, part, self._submit(path, part)))

    def _parts(self, ids: list[str]) -> list[list[str]]:
        parts, size = list[list[str]](), MOST_BYTES
        for id in ids:
            length = len(to_json(self._waiting[id].body)) + 200
            if size + length > MOST_BYTES or len(parts[-1]) >= MOST:
                parts.append([])
                size = 0
            parts[-1].append(id)
            size += length
        return parts

    async def _submit(self, path: str, ids: list[str]) -> None:
        requests = [(id, self._waiting[id].body) for id in ids]
        batch = await self._retry(lambda: self._api.submit(path, requests))
        note = {"endpoint": self.identity["endpoint"], "batch": batch, "ids": ids}
        write_json(self._folder / f"{hashlib.sha256(batch.encode()).hexdigest()[:16]}.json", note)
        self._submitted |= dict.fromkeys(ids, batch)
        self._watch(batch, ids)

    def _watch(self, batch: str, ids: list[str]) -> None:
        if batch not in self._tasks:
            self._tasks[batch] = asyncio.create_task(self._guarded(batch, ids, self._collect(batch)))

    async def _guarded(self, name: str, ids: list[str], work: Any) -> None:
        try:
            await work
        except Exception as caught:  # whatever it is, it must reach those who wait for this batch
            error = caught
            if isinstance(caught, Suspect):  # a batch is no single prompt: what it is refused for concerns them all
                error = Refused(self.identity["endpoint"], f"{caught.what} ({caught.message})", caught.fix)
            for id in (*ids, *self._in(name)):
                if id in self._waiting and not self._waiting[id].answer.done():
                    self._waiting[id].answer.set_exception(error)
        finally:
            self._tasks.pop(name, None)

    async def _collect(self, batch: str) -> None:
        answers, errors = dict[str, Any](), dict[str, str]()
        for place in await self._ended(batch):
            for result in await self._retry(partial(self._api.results, place)):
                if result.error:
                    errors[result.id] = result.error
                else:
                    answers.setdefault(result.id, result.answer)
        for id in self._in(batch):
            waiting = self._waiting.get(id)
            if id not in answers:
                self._submitted.pop(id)  # the next request with this id goes into another batch
                if waiting and not waiting.answer.done():
                    self._again(id, waiting, errors.get(id, "the batch ended without it"))
            elif waiting is None:
                self._kept[id] = answers[id]  # this process has not asked for it yet
            elif not waiting.answer.done():
                waiting.answer.set_result(answers[id])

    async def _ended(self, batch: str) -> tuple[str, ...]:
        """Where its results are, as soon as it has ended; nowhere, if the vendor has deleted an old one."""
        try:
            while (places := await self._retry(partial(self._api.result_places, batch))) is None:  # noqa: ASYNC110
                await asyncio.sleep(self._poll)
        except (Refused, Suspect):
            if batch not in self._earlier:
                raise
            return ()
        return places

    def _again(self, id: str, waiting: _Waiting, why: str) -> None:
        waiting.tries += 1
        self.meter.settle(waiting.claim.most, Usage())
        if waiting.tries >= TRIES:
            waiting.answer.set_exception(Transient("batch", f"no answer in {TRIES} batches: {why}", attempts=TRIES))
            return
        try:
            waiting.claim = self._client.claim(waiting.body)
        except BudgetReached as error:
            waiting.answer.set_exception(error)
        else:
            self._enqueue(id)

    def _in(self, batch: str) -> list[str]:
        return [id for id, held in self._submitted.items() if held == batch]

    def _noted(self) -> dict[str, str]:
        """Request -> batch, of all that earlier processes submitted to this endpoint."""
        found: dict[str, str] = {}
        for file in sorted(self._folder.glob("*.json")):
            try:
                note = json.loads(file.read_text("utf-8"))
                if note["endpoint"] == self.identity["endpoint"]:
                    found |= dict.fromkeys(map(str, note["ids"]), str(note["batch"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                fix = "delete it: its requests are then sent and paid again"
                raise Mistake(str(file), f"is not the note of a batch: {error}", fix) from None
        return found
