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

from cai.backends.local.sampling import sample_tokens, token_logprobs
from cai.backends.local.sequences import Feed, Row, SequenceRunner
from cai.core.errors import CaiError, Permanent
from cai.core.types import Finish, Sampling

STEP_TOKENS = 512
"""Tokens computed in one step: enough to keep products efficient, few enough to keep answers coming."""
LEAST_TOKENS = 64
"""What a step is cut down to when memory runs out."""


@dataclass(frozen=True, slots=True)
class Output:
    """What became of a job: the tokens generated and their log-probabilities, why it ended, and what options got."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    judged: tuple[tuple[float, ...], ...] = ()
    """Log-probabilities of each option's tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineJob:
    """Tokens to go on from, and how; or, with `options`, tokens after which each of several others is only judged."""

    ids: tuple[int, ...]
    sampling: Sampling = Sampling(max_tokens=0)
    seed: int = 0
    options: tuple[tuple[int, ...], ...] = ()
    is_stop: Callable[[Sequence[int]], bool] = lambda generated: False
    """Whether the generated tokens hold one of the sampling's stop texts."""
    future: Future[Output] = field(default_factory=Future)

    @property
    def room(self) -> int:
        """Tokens that may have to be computed after `ids`."""
        return max(map(len, self.options), default=self.sampling.max_tokens)

    def settle(self, output: Output | BaseException) -> None:
        """Give the waiter its answer, unless it has gone."""
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(output, Output):
            self.future.set_result(output)
        else:
            self.future.set_exception(output)


class _Running:
    """A job that has a row, and writes its answer."""

    def __init__(self, job: EngineJob, row: Row) -> None:
        self.job, self.row = job, row
        self.tokens = list(job.ids)
        """What the row is to compute."""
        self.logprobs: list[float] = []
        self.chance = random.Random(job.seed)

    @property
    def generated(self) -> list[int]:
        return self.tokens[len(self.job.ids) :]

    @property
    def missing(self) -> int:
        """How many tokens are yet to be computed."""
        return len(self.tokens) - len(self.row.done)

    def feed(self, budget: int) -> Feed:
        """The next tokens, at most `budget`, and how many logits are wanted: all after the last of the prompt."""
        start = len(self.row.done)
        end = start + min(self.missing, budget)
        return Feed(self.row, self.tokens[start:end], max(0, end - max(start, len(self.job.ids) - 1)))

    def output(self, finish: Finish) -> Output:
        """What was found."""
        return Output(tuple(self.generated), tuple(self.logprobs), finish)


class _Judging(_Running):
    """A job whose options are read one after the other in one row, each from where it parts from the one before."""

    def __init__(self, job: EngineJob, row: Row) -> None:
        super().__init__(job, row)
        self.judged: list[list[float]] = [[] for _ in job.options]
        self._read(job.options[0])

    def judge(self, logits: Tensor) -> bool:
        """Take in the logits of the last tokens fed, and turn to the next option; False when none is left."""
        at = len(self.row.done) - len(logits) + 1 - len(self.job.ids)
        after = self.tokens[len(self.job.ids) :]
        for option, found in zip(self.job.options, self.judged, strict=True):
            # logits tell of every option that begins with what was read, the first of them of all options
            known = len(found)
            if at <= known < min(len(option), at + len(logits)):
                same = _common(option, after)
                targets = option[known : min(len(option), at + len(logits), same + 1)]
                rows = logits[known - at : known - at + len(targets)]
                found += token_logprobs(rows, torch.tensor(targets, device=logits.device)).tolist()
        if self.missing:
            return True
        for option, found in zip(self.job.options, self.judged, strict=True):
            if len(found) < len(option):
                self.row.rewind(len(self.job.ids) + _common(option, after))
                self._read(option)
                return True
        return False

    def output(self, finish: Finish) -> Output:
        """What was found of each option."""
        return Output((), (), finish, tuple(map(tuple, self.judged)))

    def _read(self, option: Sequence[int]) -> None:
        # its last token predicts nothing
        self.tokens = [*self.job.ids, *option[:-1]]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class Engine:
    """Takes jobs from any thread and runs them in one of its own."""

    def __init__(self, rows: SequenceRunner, *, ends: frozenset[int], batch: int) -> None:
        self._rows, self._ends = rows, ends
        self._most = self._batch = batch
        self._step_tokens = STEP_TOKENS
        self._waiting: deque[EngineJob] = deque()
        self._running: list[_Running] = []
        self._wake = threading.Condition()
        """Guards what other threads touch: the queue and the reason to stop."""
        self._stopped: BaseException | None = None
        # a daemon: a process that wants to end is not held up by a model
        self._thread = threading.Thread(target=self._work, name="cai-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # torch aborts a process that ends in the middle of a product

    def submit(self, job: EngineJob) -> None:
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
            # what predicts the first wanted token is computed here
            row = self._rows.open(job.ids, room=job.room, reusable=len(job.ids) - 1)
            if row is None:
                return
            with self._wake:
                self._waiting.popleft()
            self._running.append(_Judging(job, row) if job.options else _Running(job, row))
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
            if feed.wanted and isinstance(running, _Judging):
                if not running.judge(part):
                    self._finish(running, "stop")
            elif feed.wanted:
                drawing.append((running, part))
        if drawing:
            self._draw([running for running, _ in drawing], torch.cat([part for _, part in drawing]))

    def _draw(self, drawing: Sequence[_Running], logits: Tensor) -> None:
        """The next token of each row."""
        ids = sample_tokens(logits, [(running.job.sampling, running.chance.random()) for running in drawing])
        for running, token, logprob in zip(drawing, ids.tolist(), token_logprobs(logits, ids).tolist(), strict=True):
            running.tokens.append(token)
            running.logprobs.append(logprob)
            if reason := self._ended(running):
                self._finish(running, reason)

    def _ended(self, running: _Running) -> Finish | None:
        job, generated = running.job, running.generated
        if generated[-1] in self._ends or job.is_stop(generated):
            return "stop"
        return "length" if len(generated) >= job.sampling.max_tokens else None

    def _finish(self, running: _Running, finish: Finish) -> None:
        output = running.output(finish)
        if any(logprob != logprob for found in (output.logprobs, *output.judged) for logprob in found):
            self._release(running, keep=False)
            running.job.settle(Permanent("not_a_number", "the model's numbers overflowed; try float32"))
        else:
            self._release(running)
            running.job.settle(output)

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
