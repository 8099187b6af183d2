"""A judge as the reward: its expected score of an answer by a principle (direct RLAIF, arXiv 2309.00267).

Calls go through a journal in the training's folder, so that a resumed training repeats none. All answers to a prompt
are scored by the same principle, because their rewards are compared. Pairwise judges give no reward for one answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from cai.constitution.principles import NoPrinciple, load_constitution, ranked
from cai.core import plugins
from cai.core.concurrency import together
from cai.core.config import Document, Knobs, parse_options
from cai.core.errors import CallFailed, Mistake
from cai.core.plugin_types import Backend, Job
from cai.core.seeds import digest
from cai.core.types import Comparison, Prompt
from cai.data.training_rows import prompt_messages
from cai.judges.panel.ask import JudgeContext, load_judge_template
from cai.judges.score import JUDGE, rate_answer
from cai.runs.budget import CallTally
from cai.runs.journal import Journal
from cai.runs.journaled import through_journal
from cai.runs.recipe import ModelChoice
from cai.runs.secret import fence_secret


class JudgeReward:
    """A judge called through an event loop in a thread of its own, because training is synchronous."""

    def __init__(self, choice: ModelChoice, constitution: str, template: str, job: Job) -> None:
        backend = plugins.find_plugin("backends", choice.backend, Backend)
        options: Knobs = parse_options(Document("rewards: judge", choice.options, None), backend.options)
        loaded = load_constitution(constitution)
        self._principles = [principle for principle in loaded.principles if principle.compare and principle.weight]
        if not self._principles:
            raise Mistake(
                f"constitution {constitution}", "no principle has `compare`", "add it: a judge scores by that text"
            )
        question = load_judge_template(JUDGE, template)
        self._journal = Journal(job.out / "journal.sqlite")
        self.tally = CallTally()
        self._model = through_journal(self._journal, backend.open(options), self.tally)
        secret = fence_secret(self._journal.path)
        self._context, self._seed = JudgeContext(self._model, question, job.seed, secret), job.seed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def each(self, rows: Sequence[Mapping[str, object]], answers: Sequence[str]) -> list[tuple[float, ...] | None]:
        """The score of each answer, or None where the judge gave none."""
        return asyncio.run_coroutine_threadsafe(self._all(rows, answers), self._loop).result()

    async def _all(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> list[tuple[float, ...] | None]:
        limit = asyncio.Semaphore(self._model.concurrency)

        async def one(row: Mapping[str, Any], answer: str) -> tuple[float, ...] | None:
            async with limit:
                return await self._one(row, answer)

        return await together(one(row, answer) for row, answer in zip(rows, answers, strict=True))

    async def _one(self, row: Mapping[str, Any], answer: str) -> tuple[float, ...] | None:
        prompt = Prompt(str(row["id"]), prompt_messages(row))
        try:
            principle = ranked(self._principles, prompt, self._seed, "reward")[0]
            comparison = Comparison(f"{prompt.id}/{digest(answer)[:16]}", prompt, answer, answer, principle)
            return ((await rate_answer(comparison, self._context, answer)).reward,)
        except (CallFailed, NoPrinciple):
            return None  # counted as unrewarded; a failure is never a number

    def close(self) -> None:
        """Close the model, the thread and the journal."""
        asyncio.run_coroutine_threadsafe(self._model.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._journal.close()
