"""A language model in this process: callers make single requests, an engine batches them.

A prompt is never shortened: one that leaves no room for an answer is an error of its row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cai.backends.local.engine import Engine, EngineJob, Output
from cai.backends.local.load import load_model
from cai.backends.local.options import LocalOptions
from cai.backends.local.tokenizer import ChatTokenizer
from cai.core.errors import Permanent
from cai.core.reasoning import split_thinking
from cai.core.types import Completion, Request, Score, Usage


class LocalModel:
    """`cai.core.types.Model` over a transformers model."""

    def __init__(self, options: LocalOptions) -> None:
        loaded = load_model(options)
        self._identity = loaded.identity
        self._keeps_logprobs = options.logprobs
        self._context = loaded.context
        self._batch = loaded.batch
        self._tokenizer = ChatTokenizer(loaded.tokenizer, options.model)
        self._ends = self._tokenizer.ends(loaded.ends)
        self._engine = Engine(loaded.rows, ends=self._ends, batch=loaded.batch)

    @property
    def identity(self) -> Mapping[str, str]:
        """Engine, model, the digest or commit of its weights, and the precision."""
        return self._identity

    @property
    def concurrency(self) -> int:
        """Half a batch more than runs at once, so that a row that ends is replaced in the next step."""
        return self._batch + self._batch // 2

    async def complete(self, request: Request) -> Completion:
        """One answer. Raises Permanent if this request can have none."""
        prompt = self._tokenizer.render(request)
        self._check_length(len(prompt.ids) + 1)
        wanted = request.sampling
        sampling = replace(wanted, max_tokens=min(wanted.max_tokens, self._context - len(prompt.ids)))
        job = EngineJob(prompt.ids, sampling, request.seed, is_stop=self._tokenizer.stop_finder(wanted.stop))
        output = await self._run(job)
        text = self._tokenizer.decode([token for token in output.ids if token not in self._ends])
        for stop in wanted.stop:
            text = text.partition(stop)[0]
        text, thinking = split_thinking("<think>" + text if prompt.in_thought else text)
        usage = Usage(len(prompt.ids), len(output.ids))
        return Completion(text, thinking, output.finish, usage, output.logprobs if self._keeps_logprobs else None)

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        """Log-probability of each continuation after the request's messages, which are computed once."""
        prompt = self._tokenizer.render(request)
        options = [self._tokenizer.continuation(prompt, text) for text in continuations]
        if not all(options):
            raise Permanent("empty_continuation", "there is nothing to score")
        self._check_length(len(prompt.ids) + max(map(len, options)))
        output = await self._run(EngineJob(prompt.ids, options=tuple(options)))
        return tuple(Score(sum(logprobs), len(logprobs)) for logprobs in output.scored)

    def status(self) -> Mapping[str, float]:
        """For a progress line."""
        return self._engine.status()

    async def close(self) -> None:
        """Stop the engine after the current step."""
        await asyncio.to_thread(self._engine.close)

    def _check_length(self, length: int) -> None:
        if length > self._context:
            raise Permanent("context_too_long", f"{length} tokens, and the model reads {self._context}; none is cut")

    async def _run(self, job: EngineJob) -> Output:
        self._engine.submit(job)
        # cancelling this await cancels the job's future, and the engine frees its row
        return await asyncio.wrap_future(job.future)
