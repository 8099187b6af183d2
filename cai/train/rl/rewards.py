"""Rewards of answers for reinforcement learning: a reward model, an ensemble, a Python function, or a judge.

Several sources are combined as a weighted sum or a minimum. The reward is None for an answer that cannot be rewarded: a
function returned None or NaN, a judge failed, or the answer is too long for the reward model. Such answers are left out
and counted. Where no answer of a batch can be rewarded, the training stops with one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean, pstdev
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, model_validator

from cai.core import plugins
from cai.core.config import Knobs
from cai.core.errors import Mistake
from cai.core.plugin_types import Job
from cai.data.training_rows import prompt_messages
from cai.runs.files import restored
from cai.runs.recipe import ModelChoice

Row = Mapping[str, Any]
RewardFunction = Callable[[Sequence[list[dict[str, str]]], Sequence[str], Sequence[Row]], Sequence[float | None]]
"""A user's reward function: (prompts, answers, rows) -> for each answer a number or None."""


class RewardSource(Knobs):
    """One of model, function and judge. A string of the form `pkg.module:name` is a function, any other a model."""

    model: str | None = None
    """Folder of a reward model, an ensemble or a training."""
    members: Literal["mean", "min", "mean_std"] = "mean"
    """How an ensemble's scores are combined: mean, minimum, or mean - k * standard deviation."""
    k: float = 1.0
    function: str | None = None
    """`pkg.module:function`, called with prompts, answers and rows."""
    judge: ModelChoice | None = None
    """Direct RLAIF (arXiv 2309.00267, 2.3): this model's expected score of 1 to 10, rescaled to [-1, 1]."""
    constitution: str = "default"
    """The constitution whose principles the judge scores by."""
    template: str = "small"
    """The judge's template in `prompts/score`."""
    weight: float = 1.0

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        return {"function": data} if ":" in data and not Path(data).exists() else {"model": data}

    @model_validator(mode="after")
    def _one(self) -> RewardSource:
        if sum(one is not None for one in (self.model, self.function, self.judge)) != 1:
            raise ValueError("names one of model, function and judge")
        return self

    @property
    def name(self) -> str:
        """The name in metrics and errors."""
        return self.function or (Path(self.model).name if self.model else "judge")


def _as_list(data: Any) -> Any:
    return data if isinstance(data, list | tuple) else [data]


RewardSources = Annotated[tuple[RewardSource, ...], BeforeValidator(_as_list), Field(min_length=1)]
"""One source or several."""


@dataclass(frozen=True, slots=True)
class BatchRewards:
    """The rewards of a batch of answers, and how far the members of ensembles disagree."""

    scores: list[float | None]
    disagreement: float | None
    """Standard deviation between the members of ensembles, mean over answers; None without an ensemble."""

    @property
    def failed(self) -> int:
        """Answers without a reward."""
        return self.scores.count(None)


class Rewarder(Protocol):
    """An open source of rewards."""

    def each(self, rows: Sequence[Mapping[str, object]], answers: Sequence[str]) -> list[tuple[float, ...] | None]:
        """For each answer the score by each member, or None."""

    def close(self) -> None:
        """Free what the source holds."""


class Rewards:
    """The open reward sources of a training."""

    def __init__(self, sources: Sequence[RewardSource], combine: Literal["sum", "min"], job: Job) -> None:
        self._sources, self._combine = tuple(sources), combine
        self._open = tuple(_opened(source, job) for source in sources)

    def of(self, rows: Sequence[Mapping[str, object]], answers: Sequence[str]) -> BatchRewards:
        """The reward of each answer to each row's prompt. Raises Mistake where no answer can be rewarded."""
        scores_by_source = [one.each(rows, answers) for one in self._open]
        scores = [self._combined(parts) for parts in zip(*scores_by_source, strict=True)]
        if scores and all(score is None for score in scores):
            names = ", ".join(source.name for source in self._sources)
            raise Mistake(f"reward {names}", f"none of {len(scores)} answers could be rewarded", "check the source")
        return BatchRewards(scores, self._disagreement(scores_by_source))

    def _combined(self, parts: Sequence[tuple[float, ...] | None]) -> float | None:
        from cai.backends.local.reward_model import combine_scores

        scores = [
            source.weight * combine_scores(part, source.members, source.k)
            for source, part in zip(self._sources, parts, strict=True)
            if part and all(map(isfinite, part))
        ]
        if len(scores) < len(parts):
            return None
        return min(scores) if self._combine == "min" else sum(scores)

    def _disagreement(self, scores_by_source: Sequence[Sequence[tuple[float, ...] | None]]) -> float | None:
        spreads = [pstdev(part) for source in scores_by_source for part in source if part and len(part) > 1]
        if self._combine == "min" and len(scores_by_source) > 1:
            spreads += [
                pstdev([fmean(part) for part in parts if part])
                for parts in zip(*scores_by_source, strict=True)
                if all(parts)
            ]
        return fmean(spreads) if spreads else None

    def close(self) -> None:
        """Close all sources."""
        for one in self._open:
            one.close()


def _opened(source: RewardSource, job: Job) -> Rewarder:
    if source.model:
        return _Model(source)
    if source.function:
        return _Function(source.function)
    from cai.train.rl.judge_reward import JudgeReward

    assert source.judge  # as checked
    return JudgeReward(source.judge, source.constitution, source.template, job)


class _Model:
    """A reward model or an ensemble of them."""

    def __init__(self, source: RewardSource) -> None:
        from cai.backends.local.reward_model import open_scorer

        folder = Path(source.model or "")
        inside = restored(folder / "model")  # of a training
        folder = inside if inside.is_dir() else folder
        if not folder.is_dir():
            raise Mistake(
                f"rewards: {source.model}", "there is no such folder", "train a reward model: `cai train reward`"
            )
        self._scorer = open_scorer(folder, combine=source.members, k=source.k, batch_size=16)

    def each(self, rows: Sequence[Row], answers: Sequence[str]) -> list[tuple[float, ...] | None]:
        conversations = [(prompt_messages(row), answer) for row, answer in zip(rows, answers, strict=True)]
        fits = [len(self._scorer.tokens(*one)) <= self._scorer.limit for one in conversations]
        found = iter(
            self._scorer.each([one for one, fit in zip(conversations, fits, strict=True) if fit]) if any(fits) else ()
        )
        return [next(found) if fit else None for fit in fits]

    def close(self) -> None: ...


class _Function:
    """A user's reward function; checks that it returns one number for each answer."""

    def __init__(self, name: str) -> None:
        found = plugins.load_attribute(name)
        if not callable(found):
            raise Mistake(f"rewards: {name}", "is not a function", "name one as pkg.module:function")
        self._name, self._call = f"reward {name}", found

    def each(self, rows: Sequence[Row], answers: Sequence[str]) -> list[tuple[float, ...] | None]:
        try:
            rewards = list(self._call([row["prompt"] for row in rows], list(answers), list(rows)))
        except Exception as error:  # whatever a user's code raises is reported in one line
            what = f"raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise Mistake(self._name, what, "fix it; return None for an answer that cannot be rewarded") from error
        if len(rewards) != len(answers):
            raise Mistake(
                self._name, f"returned {len(rewards)} rewards for {len(answers)} answers", "return one for each"
            )
        return [self._number(value) for value in rewards]

    def _number(self, value: Any) -> tuple[float, ...] | None:
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            raise Mistake(self._name, f"returned {value!r:.60}", "return numbers, or None") from None
        return (number,) if number is not None and isfinite(number) else None

    def close(self) -> None: ...
