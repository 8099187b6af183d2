"""Answers many requests at once on one model: a thread that batches what waits, token by token.

Requests come one at a time and leave one at a time; a row that ends makes room for the next in the same step. Each
step computes one token of every answer and as much of the waiting prompts as fits its budget.

Left out on purpose: priorities and preemption. First come, first served, except that a row whose beginning is just
being computed by another waits to take it over.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from cai.backends._ragged import Feed
from cai.backends._sampling import draw, logprobs
from cai.errors import CaiError, Permanent
from cai.types import Finish, Sampling

STEP_TOKENS = 512
"""Prompt tokens computed in one step: enough to keep products efficient, few enough to keep answers coming."""


class Rows(Protocol):
    """A model that computes rows: `_ragged` or `_serial`."""

    def open(self, prompt: Sequence[int], *, room: int, reusable: int) -> Any: ...
    def close(self, row: Any) -> None: ...
    def shrink(self) -> None: ...
    def forward(self, feeds: Sequence[Feed]) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Output:
    """What became of a job: its tokens (generated, or scored), their log-probabilities, and why it ended."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish


@dataclass(slots=True, eq=False)
class Job:
    """Tokens to go on from, and how; `scored` of them at the end are given, and only their log-probabilities wanted."""

    ids: tuple[int, ...]
    sampling: Sampling = Sampling(max_tokens=0)
    seed: int = 0
    scored: int = 0
    is_stop: Callable[[Sequence[int]], bool] | None = None
    """Whether the generated tokens hold one of the sampling's stop texts."""
    future: Future[Output] = field(default_factory=Future)


class _Running:
    """A job that has a row."""

    def __init__(self, job: Job, row: Any) -> None:
        self.job, self.row = job, row
        self.tokens = list(job.ids)
        self.logprobs: list[float] = []
        self.chance = random.Random(job.seed)

    @property
    def generated(self) -> list[int]:
        return self.tokens[len(self.job.ids) :]

    def feed(self, budget: int) -> Feed:
        """The next tokens to compute, at most `budget`; logits from the first place that predicts a wanted token."""
        end = len(self.tokens) - (1 if self.job.scored else 0)
        start = len(self.row.done)
        ids = self.tokens[start : min(end, start + budget)]
        first_wanted = len(self.job.ids) - self.job.scored - 1 if self.job.scored else end - 1
        return Feed(self.row, ids, max(0, start + len(ids) - max(first_wanted, start)))


class Engine:
    """Takes jobs from any thread and runs them in one of its own."""

    def __init__(self, rows: Rows, *, ends: frozenset[int], batch: int) -> None:
        self._rows, self._ends, self._batch = rows, ends, batch
        self._step_tokens = STEP_TOKENS
        self._waiting: deque[Job] = deque()
        self._running: list[_Running] = []
        self._wake = threading.Condition()
        self._stopped: BaseException | None = None
        # a daemon: whatever happens, a process that wants to end is not held up by a model
        self._thread = threading.Thread(target=self._work, name="cai-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises what stopped the engine, if something did."""
        with self._wake:
            if self._stopped:
                raise self._stopped
            self._waiting.append(job)
            self._wake.notify()

    def close(self) -> None:
        """Stop after the step that is being computed; jobs that are not done fail."""
        self._stop(CaiError("the engine was closed"))
        self._thread.join()

    def _stop(self, reason: BaseException) -> None:
        with self._wake:
            self._stopped = self._stopped or reason
            self._wake.notify()

    @torch.inference_mode()
    def _work(self) -> None:
        try:
            while self._wait():
                self._step()
        except BaseException as error:  # nobody above this thread could see it: it goes to everyone who waits
            failure = CaiError(f"the engine stopped: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._stop(failure)
        self._fail_all()

    def _wait(self) -> bool:
        """Until there is work; False when the engine is to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._waiting or self._running)
            return self._stopped is None

    def _fail_all(self) -> None:
        with self._wake:
            reason = self._stopped or CaiError("the engine was closed")
            jobs = [running.job for running in self._running] + list(self._waiting)
            self._running, self._waiting = [], deque()
        for job in jobs:
            _settle(job, error=reason)

    def _step(self) -> None:
        self._drop_cancelled()
        self._admit()
        try:
            self._advance()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            self._retreat(error)

    def _drop_cancelled(self) -> None:
        with self._wake:
            self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
        for running in [each for each in self._running if each.job.future.cancelled()]:
            self._release(running)

    def _release(self, running: _Running) -> None:
        self._running.remove(running)
        self._rows.close(running.row)

    def _admit(self) -> None:
        """Give rows to waiting jobs, oldest first, while there is room and prompts to compute fit the step."""
        budget = self._step_tokens
        for job in list(self._waiting):
            if len(self._running) >= self._batch or budget <= 0:
                break
            reusable = len(job.ids) - job.scored - 1
            row = self._rows.open(job.ids, room=job.sampling.max_tokens, reusable=reusable)
            if row is not None:
                with self._wake:
                    self._waiting.remove(job)
                self._running.append(_Running(job, row))
                budget -= len(job.ids) - len(row.done)

    def _advance(self) -> None:
        """One forward pass for all rows, and one token for each that has its prompt behind it."""
        feeds, fed, budget = [], [], self._step_tokens
        # short needs first: an answer's next token never waits for another's prompt
        for running in sorted(self._running, key=lambda each: len(each.tokens) - len(each.row.done)):
            feed = running.feed(max(1, budget) if running.generated else budget)
            if feed.ids:
                feeds.append(feed)
                fed.append(running)
                budget -= len(feed.ids)
        if not feeds:
            return
        logits = self._rows.forward(feeds).float()
        at = 0
        drawing, places = [], []
        for running, feed in zip(fed, feeds, strict=True):
            if feed.wanted and running.job.scored:
                self._score(running, logits[at : at + feed.wanted])
            elif feed.wanted:
                drawing.append(running)
                places.append(at)
            at += feed.wanted
        if drawing:
            self._draw(drawing, logits if len(places) == len(logits) else logits[places])

    def _score(self, running: _Running, logits: Tensor) -> None:
        at = len(running.job.ids) - running.job.scored + len(running.logprobs)
        targets = torch.tensor(running.job.ids[at : at + len(logits)], device=logits.device)
        running.logprobs += logprobs(logits, targets).tolist()
        if len(running.logprobs) == running.job.scored:
            self._finish(running, running.job.ids[-running.job.scored :], "stop")

    def _draw(self, drawing: Sequence[_Running], logits: Tensor) -> None:
        ids = draw(logits, [(running.job.sampling, running.chance.random()) for running in drawing])
        for running, token, logprob in zip(drawing, ids.tolist(), logprobs(logits, ids).tolist(), strict=True):
            running.tokens.append(token)
            running.logprobs.append(logprob)
            if logprob != logprob:  # not a number: the model overflowed, and whatever was drawn is noise
                self._release(running)
                _settle(running.job, error=Permanent("not_a_number", "the model's numbers overflowed"))
            elif finish := self._finished(running):
                self._finish(running, tuple(running.generated), finish)

    def _finished(self, running: _Running) -> Finish | None:
        job, generated = running.job, running.generated
        if generated[-1] in self._ends or (job.is_stop and job.is_stop(generated)):
            return "stop"
        return "length" if len(generated) >= job.sampling.max_tokens else None

    def _finish(self, running: _Running, ids: Sequence[int], finish: Finish) -> None:
        self._release(running)
        _settle(running.job, Output(tuple(ids), tuple(running.logprobs), finish))

    def _retreat(self, error: BaseException) -> None:
        """Out of memory: half as many rows from now on, the youngest begin again later."""
        if len(self._running) <= 1 and self._step_tokens <= 64:
            for running in list(self._running):
                self._release(running)
                _settle(running.job, error=Permanent("out_of_memory", str(error).splitlines()[0][:200]))
        self._batch = max(1, len(self._running) // 2)
        self._step_tokens = max(64, self._step_tokens // 2)
        for running in self._running[self._batch :][::-1]:
            self._release(running)
            with self._wake:
                self._waiting.appendleft(running.job)
        self._rows.shrink()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _settle(job: Job, output: Output | None = None, error: BaseException | None = None) -> None:
    """Give the job's waiter its answer, unless it has gone."""
    if job.future.set_running_or_notify_cancel():
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(output)  # type: ignore[arg-type]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()  # MPS and the CPU's allocator have no class for it
    return "out of memory" in words or "can't allocate memory" in words or "not enough memory" in words
