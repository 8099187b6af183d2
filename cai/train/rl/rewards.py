"""What an answer is worth in reinforcement: by a reward model, an ensemble of them, a Python function, or a judge.

Several together are a weighted sum, or the least of them (worst case). An answer that cannot be rewarded, because a
function returned None or NaN, a judge failed, or it is too long for the reward model, is None: it is left out and
counted, and never a number. Where not one answer of a batch can be rewarded, the training stops with one line.

Left out on purpose: how a judge asks (`_reward_judge`), and rewards for single tokens.
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
from cai.runs.recipe import ModelChoice

Row = Mapping[str, Any]
Given = Callable[[Sequence[list[dict[str, str]]], Sequence[str], Sequence[Row]], Sequence[float | None]]
"""A person's function: (prompts, answers, rows) -> a number an answer, or None."""


class RewardSource(Knobs):
    """One of model, function and judge. A bare text is a function where it reads `pkg.module:name`, else a model."""

    model: str | None = None
    """Folder of a reward model or an ensemble, or of the training that made it."""
    members: Literal["mean", "min", "mean_std"] = "mean"
    """How an ensemble's members become one: mean, the least, or mean - k * standard deviation."""
    k: float = 1.0
    function: str | None = None
    """`pkg.module:function`, called with prompts, answers and rows."""
    judge: ModelChoice | None = None
    """Direct RLAIF (arXiv 2309.00267, 2.3): this model's expected score of 1 to 10, rescaled to [-1, 1]."""
    constitution: str = "default"
    """Where the principles come from that a judge scores by."""
    template: str = "small"
    """The judge's template in `prompts/score`."""
    weight: float = 1.0

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, data: Any) -> Any:
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
        """What metrics call it."""
        return self.function or (Path(self.model).name if self.model else "judge")


def _several(data: Any) -> Any:
    return data if isinstance(data, list | tuple) else [data]


RewardSources = Annotated[tuple[RewardSource, ...], BeforeValidator(_several), Field(min_length=1)]
"""One source or several."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What the answers of a batch are worth, and how far apart those are who say so."""

    scores: list[float | None]
    disagreement: float | None
    """Standard deviation between the members of ensembles, mean of answers; None where nobody can disagree."""

    @property
    def failed(self) -> int:
        return self.scores.count(None)


class Rewarder(Protocol):
    """An open source: for each answer what each of its members says, or None."""

    def each(self, rows: Sequence[Row], answers: Sequence[str]) -> list[tuple[float, ...] | None]: ...

    def close(self) -> None: ...


class Rewards:
    """All sources of a training, open."""

    def __init__(self, sources: Sequence[RewardSource], combine: Literal["sum", "min"], job: Job) -> None:
        self._sources, self._combine = tuple(sources), combine
        self._open = tuple(_opened(source, job) for source in sources)

    def of(self, rows: Sequence[Row], answers: Sequence[str]) -> Worth:
        """What each answer to each row's prompt is worth. Raises Mistake where not one can be said."""
        said = [one.each(rows, answers) for one in self._open]
        scores = [self._one(parts) for parts in zip(*said, strict=True)]
        if scores and all(score is None for score in scores):
            names = ", ".join(source.name for source in self._sources)
            raise Mistake(f"reward {names}", f"none of {len(scores)} answers could be rewarded", "look at the source")
        return Worth(scores, self._disagreement(said))

    def _one(self, parts: Sequence[tuple[float, ...] | None]) -> float | None:
        from cai.backends.local.reward_model import combine_scores

        scores = [
            source.weight * combine_scores(part, source.members, source.k)
            for source, part in zip(self._sources, parts, strict=True)
            if part and all(map(isfinite, part))
        ]
        if len(scores) < len(parts):
            return None
        return min(scores) if self._combine == "min" else sum(scores)

    def _disagreement(self, said: Sequence[Sequence[tuple[float, ...] | None]]) -> float | None:
        spreads = [pstdev(part) for source in said for part in source if part and len(part) > 1]
        if self._combine == "min" and len(said) > 1:
            spreads += [
                pstdev([fmean(part) for part in parts if part]) for parts in zip(*said, strict=True) if all(parts)
            ]
        return fmean(spreads) if spreads else None

    def close(self) -> None:
        """Give back what sources hold."""
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
        folder = folder / "model" if (folder / "model").is_dir() else folder  # a training's own folder
        if not folder.is_dir():
            raise Mistake(f"rewards: {source.model}", "there is no such folder", "train one: `cai train reward`")
        self._scorer = open_scorer(folder, combine=source.members, k=source.k, batch_size=16)

    def each(self, rows: Sequence[Row], answers: Sequence[str]) -> list[tuple[float, ...] | None]:
        asked = [(prompt_messages(row), answer) for row, answer in zip(rows, answers, strict=True)]
        fits = [len(self._scorer.tokens(*one)) <= self._scorer.limit for one in asked]
        found = iter(self._scorer.each([one for one, fit in zip(asked, fits, strict=True) if fit]) if any(fits) else ())
        return [next(found) if fit else None for fit in fits]

    def close(self) -> None: ...


class _Function:
    """A person's function, checked to return a number an answer."""

    def __init__(self, name: str) -> None:
        found = plugins.load_attribute(name)
        if not callable(found):
            raise Mistake(f"rewards: {name}", "is no function", "name one as pkg.module:function")
        self._name, self._call = f"reward {name}", found

    def each(self, rows: Sequence[Row], answers: Sequence[str]) -> list[tuple[float, ...] | None]:
        try:
            said = list(self._call([row["prompt"] for row in rows], list(answers), list(rows)))
        except Exception as error:  # whatever a person's code raises is told in one line
            what = f"raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise Mistake(self._name, what, "mend it; what cannot be rewarded may be None") from error
        if len(said) != len(answers):
            raise Mistake(self._name, f"returned {len(said)} rewards for {len(answers)} answers", "return one for each")
        return [self._number(value) for value in said]

    def _number(self, value: Any) -> tuple[float, ...] | None:
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            raise Mistake(self._name, f"returned {value!r:.60}", "return numbers, or None") from None
        return (number,) if number is not None and isfinite(number) else None

    def close(self) -> None: ...
