"""Answers many requests at once on one model: a thread that batches what waits, token by token.

Requests come one at a time and leave one at a time; a row that ends makes room for the next in the same step. Each
step computes one token of every answer and as much of the waiting prompts as fits its budget.

Left out on purpose: priorities and preemption. First come, first served.
"""

from __future__ import annotations

import atexit
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cai.backends._rows import Feed, Row, Rows
from cai.backends._sampling import draw, logprobs
from cai.errors import CaiError, Permanent
from cai.types import Finish, Sampling

STEP_TOKENS = 512
"""Tokens computed in one step: enough to keep products efficient, few enough to keep answers coming."""
LEAST_TOKENS = 64
"""What a step is cut down to when memory runs out."""


@dataclass(frozen=True, slots=True)
class Output:
    """What became of a job: its tokens (generated, or scored), their log-probabilities, and why it ended."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Tokens to go on from, and how; or, with `scored`, tokens whose last ones are only to be judged."""

    ids: tuple[int, ...]
    sampling: Sampling = Sampling(max_tokens=0)
    seed: int = 0
    scored: int = 0
    is_stop: Callable[[Sequence[int]], bool] = lambda generated: False
    """Whether the generated tokens hold one of the sampling's stop texts."""
    future: Future[Output] = field(default_factory=Future)

    def settle(self, output: Output | BaseException) -> None:
        """Give the waiter its answer, unless it has gone."""
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(output, Output):
            self.future.set_result(output)
        else:
            self.future.set_exception(output)


class _Running:
    """A job that has a row."""

    def __init__(self, job: Job, row: Row) -> None:
        self.job, self.row = job, row
        self.tokens = list(job.ids)
        self.logprobs: list[float] = []
        self.chance = random.Random(job.seed)

    @property
    def generated(self) -> list[int]:
        return self.tokens[len(self.job.ids) :]

    @property
    def missing(self) -> int:
        """How many tokens are yet to be computed; the last of a text that is only judged predicts nothing."""
        return len(self.tokens) - bool(self.job.scored) - len(self.row.done)

    def feed(self, budget: int) -> Feed:
        """The next tokens, at most `budget`, and the logits that predict a wanted token."""
        start = len(self.row.done)
        end = start + min(self.missing, budget)
        first_wanted = len(self.tokens) - max(1, self.job.scored + bool(self.job.scored))
        return Feed(self.row, self.tokens[start:end], max(0, end - max(start, first_wanted)))


class Engine:
    """Takes jobs from any thread and runs them in one of its own."""

    def __init__(self, rows: Rows, *, ends: frozenset[int], batch: int) -> None:
        self._rows, self._ends = rows, ends
        self._most = self._batch = batch
        self._step_tokens = STEP_TOKENS
        self._waiting: deque[Job] = deque()
        self._running: list[_Running] = []
        self._wake = threading.Condition()
        """Guards what other threads touch: the queue and the reason to stop."""
        self._stopped: BaseException | None = None
        # a daemon: a process that wants to end is not held up by a model
        self._thread = threading.Thread(target=self._work, name="cai-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # torch aborts a process that ends in the middle of a product

    def submit(self, job: Job) -> None:
        """Queue a job. Raises what stopped the engine, if something did."""
        with self._wake:
            if self._stopped:
                raise self._stopped
            self._waiting.append(job)
            self._wake.notify()

    def status(self) -> dict[str, float]:
        """Answers being written now, and the most at once: fewer than at first where memory ran out."""
        return {"in_flight": len(self._running), "limit": self._batch}

    def close(self) -> None:
        """Stop after the step that is being computed; jobs that are not done fail."""
        atexit.unregister(self.close)
        self._stop(CaiError("the engine was closed"))
        self._thread.join()

    def _stop(self, reason: BaseException) -> None:
        with self._wake:
            self._stopped = self._stopped or reason
            self._wake.notify()

    @torch.inference_mode()
    def _work(self) -> None:
        try:
            while self._has_work():
                self._step()
        except BaseException as error:  # nobody is above this thread: what stops it goes to everyone who waits
            failure = CaiError(f"the engine stopped: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._stop(failure)
        self._fail_all()

    def _has_work(self) -> bool:
        """Wait for some; False when the engine is to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._waiting or self._running)
            return self._stopped is None

    def _fail_all(self) -> None:
        with self._wake:
            jobs = [running.job for running in self._running] + list(self._waiting)
            self._waiting.clear()
        self._running.clear()
        for job in jobs:
            job.settle(self._stopped or CaiError("the engine was closed"))

    def _step(self) -> None:
        self._drop_cancelled()
        try:
            self._admit()
            self._advance()
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not _is_out_of_memory(error):
                raise
            self._retreat(error)

    def _drop_cancelled(self) -> None:
        with self._wake:
            self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
        for running in [each for each in self._running if each.job.future.cancelled()]:
            self._release(running)

    def _admit(self) -> None:
        """Give rows to waiting jobs, oldest first, while there is room and prompts to compute fit the step."""
        budget = self._step_tokens
        while self._waiting and len(self._running) < self._batch and budget > 0:
            job = self._waiting[0]
            reusable = len(job.ids) - job.scored - 1  # what predicts the first wanted token is computed here
            row = self._rows.open(job.ids, room=job.sampling.max_tokens, reusable=reusable)
            if row is None:
                return
            with self._wake:
                self._waiting.popleft()
            self._running.append(_Running(job, row))
            budget -= self._running[-1].missing

    def _advance(self) -> None:
        """One forward pass for all rows, and one token for each that has its prompt behind it."""
        budget = self._step_tokens
        fed: list[tuple[_Running, Feed]] = []
        # short needs first: an answer's next token does not wait for another's prompt
        for running in sorted(self._running, key=lambda each: each.missing):
            fed.append((running, running.feed(max(1, budget))))
            budget -= len(fed[-1][1].ids)
        if not fed:
            return
        logits = self._rows.forward([feed for _, feed in fed]).float()
        parts = torch.split(logits, [feed.wanted for _, feed in fed])
        drawing = []
        for (running, feed), part in zip(fed, parts, strict=True):
            if feed.wanted and running.job.scored:
                self._judge(running, part)
            elif feed.wanted:
                drawing.append((running, part))
        if drawing:
            self._draw([running for running, _ in drawing], torch.cat([part for _, part in drawing]))

    def _judge(self, running: _Running, logits: Tensor) -> None:
        """Log-probabilities of the next of the tokens that are given."""
        job = running.job
        at = len(job.ids) - job.scored + len(running.logprobs)
        targets = torch.tensor(job.ids[at : at + len(logits)], device=logits.device)
        running.logprobs += logprobs(logits, targets).tolist()
        if len(running.logprobs) == job.scored:
            self._finish(running, job.ids[-job.scored :], "stop")

    def _draw(self, drawing: Sequence[_Running], logits: Tensor) -> None:
        """The next token of each row."""
        ids = draw(logits, [(running.job.sampling, running.chance.random()) for running in drawing])
        for running, token, logprob in zip(drawing, ids.tolist(), logprobs(logits, ids).tolist(), strict=True):
            running.tokens.append(token)
            running.logprobs.append(logprob)
            if reason := self._ended(running):
                self._finish(running, running.generated, reason)

    def _ended(self, running: _Running) -> Finish | None:
        job, generated = running.job, running.generated
        if generated[-1] in self._ends or job.is_stop(generated):
            return "stop"
        return "length" if len(generated) >= job.sampling.max_tokens else None

    def _finish(self, running: _Running, ids: Sequence[int], finish: Finish) -> None:
        if any(logprob != logprob for logprob in running.logprobs):
            self._release(running, keep=False)
            running.job.settle(Permanent("not_a_number", "the model's numbers overflowed; try float32"))
        else:
            self._release(running)
            running.job.settle(Output(tuple(ids), tuple(running.logprobs), finish))

    def _release(self, running: _Running, *, keep: bool = True) -> None:
        self._running.remove(running)
        self._rows.close(running.row, keep=keep)

    def _retreat(self, error: BaseException) -> None:
        """Out of memory: half as many rows and tokens from now on; the youngest begin again later."""
        if len(self._running) <= 1 and self._step_tokens == LEAST_TOKENS:
            self._give_up(error)
        else:
            self._batch = max(1, len(self._running) // 2)
            self._step_tokens = max(LEAST_TOKENS, self._step_tokens // 2)
        for running in self._running[self._batch :][::-1]:
            self._release(running, keep=False)
            with self._wake:
                self._waiting.appendleft(running.job)
        self._rows.shrink()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _give_up(self, error: BaseException) -> None:
        """There is nothing smaller to try: the request that is alone and still too big fails, the others may fit."""
        failure = Permanent("out_of_memory", (str(error).splitlines() or ["no memory"])[0][:200])
        if self._running:
            job = self._running[0].job
            self._release(self._running[0], keep=False)
        else:
            with self._wake:
                job = self._waiting.popleft()
        job.settle(failure)
        self._batch, self._step_tokens = self._most, STEP_TOKENS


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error).lower()  # MPS and the CPU's allocator have no class of their own for it
    return any(sign in words for sign in ("out of memory", "can't allocate memory", "not enough memory"))
