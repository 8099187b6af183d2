"""Answers many requests at once on one model: a thread that batches waiting requests, token by token.

Each request gets a row of the batch; when a row ends, the next request takes its place in the same step. Each step
computes one token of every answer and as many tokens of the waiting prompts as fit its budget.

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
from typing import Any

import torch
from torch import Tensor

from cai.backends.local.sampling import sample_tokens, token_logprobs
from cai.backends.local.sequences import Feed, Row, SequenceRunner
from cai.core.errors import CaiError, Permanent
from cai.core.types import Finish, Sampling

STEP_TOKENS = 512
"""Tokens computed in one step: enough for efficient products, few enough that answers do not wait."""
LEAST_TOKENS = 64
"""The smallest step, when memory runs out."""


@dataclass(frozen=True, slots=True)
class Output:
    """The outcome of a job: generated tokens, their log-probabilities, the finish reason, and scores of options."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    scored: tuple[tuple[float, ...], ...] = ()
    """Log-probabilities of each option's tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineJob:
    """A prompt to continue; or, with `options`, a prompt after which several given continuations are scored."""

    ids: tuple[int, ...]
    sampling: Sampling = Sampling(max_tokens=0)
    seed: int = 0
    options: tuple[tuple[int, ...], ...] = ()
    is_stop: Callable[[Sequence[int]], bool] = lambda generated: False
    """Whether the generated tokens hold one of the sampling's stop texts."""
    future: Future[Output] = field(default_factory=Future)

    @property
    def new_tokens(self) -> int:
        """Tokens that may have to be computed after `ids`."""
        return max(map(len, self.options), default=self.sampling.max_tokens)

    def settle(self, output: Output | BaseException) -> None:
        """Resolve the future, unless it was cancelled."""
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(output, Output):
            self.future.set_result(output)
        else:
            self.future.set_exception(output)


class _Running:
    """A job that has a row and generates its answer."""

    def __init__(self, job: EngineJob, row: Row) -> None:
        self.job, self.row = job, row
        self.tokens = list(job.ids)
        """The tokens that the row has computed or is to compute next."""
        self.logprobs: list[float] = []
        self.random = random.Random(job.seed)

    @property
    def generated(self) -> list[int]:
        return self.tokens[len(self.job.ids) :]

    @property
    def missing(self) -> int:
        """How many tokens are not computed yet."""
        return len(self.tokens) - len(self.row.done)

    def feed(self, budget: int) -> Feed:
        """The next tokens, at most `budget`, and how many logits are wanted: from the last token of the prompt on."""
        start = len(self.row.done)
        end = start + min(self.missing, budget)
        return Feed(self.row, self.tokens[start:end], max(0, end - max(start, len(self.job.ids) - 1)))

    def output(self, finish: Finish) -> Output:
        """The output so far."""
        return Output(tuple(self.generated), tuple(self.logprobs), finish)


class _Scoring(_Running):
    """A job whose options are computed one after the other in one row, each from where it differs from the last one."""

    def __init__(self, job: EngineJob, row: Row) -> None:
        super().__init__(job, row)
        self.scored: list[list[float]] = [[] for _ in job.options]
        self._compute(job.options[0])

    def score_logits(self, logits: Tensor) -> bool:
        """Score with the logits of the last tokens fed, and go on to the next option; False when none is left."""
        at = len(self.row.done) - len(logits) + 1 - len(self.job.ids)
        after = self.tokens[len(self.job.ids) :]
        for option, found in zip(self.job.options, self.scored, strict=True):
            # logits score every option that begins with the tokens computed so far; the first of them score all options
            known = len(found)
            if at <= known < min(len(option), at + len(logits)):
                same = _common(option, after)
                targets = option[known : min(len(option), at + len(logits), same + 1)]
                rows = logits[known - at : known - at + len(targets)]
                found += token_logprobs(rows, torch.tensor(targets, device=logits.device)).tolist()
        if self.missing:
            return True
        for option, found in zip(self.job.options, self.scored, strict=True):
            if len(found) < len(option):
                self.row.rewind(len(self.job.ids) + _common(option, after))
                self._compute(option)
                return True
        return False

    def output(self, finish: Finish) -> Output:
        """The scores of each option."""
        return Output((), (), finish, tuple(map(tuple, self.scored)))

    def _compute(self, option: Sequence[int]) -> None:
        # nothing after its last token is wanted
        self.tokens = [*self.job.ids, *option[:-1]]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of their common prefix."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class Engine:
    """Takes jobs from any thread and runs them in one of its own."""

    def __init__(self, rows: SequenceRunner[Any], *, ends: frozenset[int], batch: int) -> None:
        self._rows, self._ends = rows, ends
        self._most = self._batch = batch
        self._step_tokens = STEP_TOKENS
        self._waiting: deque[EngineJob] = deque()
        self._running: list[_Running] = []
        self._wake = threading.Condition()
        """Guards what other threads use: the queue and the reason to stop."""
        self._stopped: BaseException | None = None
        # a daemon: it does not keep a process alive
        self._thread = threading.Thread(target=self._work, name="cai-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # torch aborts a process that exits in the middle of a product

    def submit(self, job: EngineJob) -> None:
        """Queue a job. Raises the error that stopped the engine, if there is one."""
        with self._wake:
            if self._stopped:
                raise self._stopped
            self._waiting.append(job)
            self._wake.notify()

    def status(self) -> dict[str, float]:
        """Answers in progress, and the most at once: fewer than at first if memory ran out."""
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
        except BaseException as error:  # this thread has no caller: its error goes to all who wait
            failure = CaiError(f"the engine stopped: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._stop(failure)
        self._fail_all()

    def _has_work(self) -> bool:
        """Wait for work; False when the engine is to stop."""
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
            self._shrink(error)

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
            # the last token is not reused: its logits predict the first new token
            row = self._rows.open(job.ids, new_tokens=job.new_tokens, reusable=len(job.ids) - 1)
            if row is None:
                return
            with self._wake:
                self._waiting.popleft()
            self._running.append(_Scoring(job, row) if job.options else _Running(job, row))
            budget -= self._running[-1].missing

    def _advance(self) -> None:
        """One forward pass for all rows, and one new token for each whose prompt is computed."""
        budget = self._step_tokens
        fed: list[tuple[_Running, Feed]] = []
        # shortest first: the next token of an answer does not wait for the prompt of another
        for running in sorted(self._running, key=lambda each: each.missing):
            fed.append((running, running.feed(max(1, budget))))
            budget -= len(fed[-1][1].ids)
        if not fed:
            return
        logits = self._rows.forward([feed for _, feed in fed]).float()
        parts = torch.split(logits, [feed.wanted for _, feed in fed])
        sampled = []
        for (running, feed), part in zip(fed, parts, strict=True):
            if feed.wanted and isinstance(running, _Scoring):
                if not running.score_logits(part):
                    self._finish(running, "stop")
            elif feed.wanted:
                sampled.append((running, part))
        if sampled:
            self._sample([running for running, _ in sampled], torch.cat([part for _, part in sampled]))

    def _sample(self, sampled: Sequence[_Running], logits: Tensor) -> None:
        """The next token of each row."""
        ids = sample_tokens(logits, [(running.job.sampling, running.random.random()) for running in sampled])
        for running, token, logprob in zip(sampled, ids.tolist(), token_logprobs(logits, ids).tolist(), strict=True):
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
        if any(logprob != logprob for found in (output.logprobs, *output.scored) for logprob in found):
            self._release(running, keep=False)
            running.job.settle(Permanent("not_a_number", "the model's numbers overflowed; try dtype: float32"))
        else:
            self._release(running)
            running.job.settle(output)

    def _release(self, running: _Running, *, keep: bool = True) -> None:
        self._running.remove(running)
        self._rows.close(running.row, keep=keep)

    def _shrink(self, error: BaseException) -> None:
        """Out of memory: halve the rows and tokens of a step; the newest rows start again later."""
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
        """The step cannot be smaller: the only request in it fails, and the others may fit."""
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
    words = str(error).lower()  # MPS and the CPU allocator have no exception class for it
    return any(sign in words for sign in ("out of memory", "can't allocate memory", "not enough memory"))
