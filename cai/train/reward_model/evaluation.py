"""Evaluates a reward model on held-out pairs; each figure has a 95 % bootstrap interval.

The baseline of the accuracy is always choosing the longer answer. Ties in the labels count only for the correlation
with length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import exp
from statistics import fmean, pstdev
from typing import Any

from cai.backends.local.reward_model import Scorer
from cai.core import calibration, stats
from cai.core.stats import Interval
from cai.core.types import JsonObject, Message

Row = Mapping[str, Any]


def evaluate(scorer: Scorer, rows: Sequence[Row], seed: int = 0) -> JsonObject:
    """The figures by name, as JSON values. `rows` have prompt, chosen, rejected and p_chosen."""
    each = scorer.each([(_turns(row["prompt"]), _text(row[side])) for row in rows for side in ("chosen", "rejected")])
    rewards = [fmean(one) for one in each]
    pairs = list(zip(rows, rewards[::2], rewards[1::2], strict=True))
    found = measures([row for row, _, _ in pairs], [(one, other) for _, one, other in pairs], seed)
    if scorer.members > 1:
        spread = [
            pstdev([a - b for a, b in zip(one, other, strict=True)])
            for one, other in zip(each[::2], each[1::2], strict=True)
        ]
        found["disagreement"] = asdict(stats.interval(spread, seed=seed))
    return found


def measures(rows: Sequence[Row], rewards: Sequence[tuple[float, float]], seed: int = 0) -> JsonObject:
    """The figures from given rewards, (chosen, rejected) for each row."""
    margins = [(row, one - other) for row, (one, other) in zip(rows, rewards, strict=True) if row["p_chosen"] != 0.5]
    signs = [1 if row["p_chosen"] > 0.5 else -1 for row, _ in margins]
    p = [_sigmoid(sign * d) for sign, (_, d) in zip(signs, margins, strict=True)]
    right = [calibration.correct(one) for one in p]
    longer = [calibration.correct(_sigmoid(sign * _longer(row))) for sign, (row, _) in zip(signs, margins, strict=True)]
    shorter = [one for one, other in zip(right, longer, strict=True) if other == 0]
    found: dict[str, Any] = {
        "pairs": len(rows),
        "accuracy": asdict(stats.interval(right, seed=seed)),
        "always_longer": asdict(stats.interval(longer, seed=seed)),
        "better_than_always_longer": asdict(stats.change(longer, right, seed=seed)),
        "accuracy_where_chosen_is_shorter": asdict(stats.interval(shorter, seed=seed)),
        "correlation_with_length": asdict(_correlation(rows, rewards, seed)),
    }
    if not p:
        return found
    fit, scaling = calibration.calibration(p, seed), calibration.scaling(p[::2], p[1::2], seed)
    return found | {
        "nll": asdict(fit.nll),
        "brier": asdict(fit.brier),
        "ece": fit.ece,
        "temperature": scaling.temperature if scaling else None,
        "nll_after_temperature": asdict(scaling.after.nll) if scaling else None,
    }


def _correlation(rows: Sequence[Row], rewards: Sequence[tuple[float, float]], seed: int) -> Interval:
    """Pearson's correlation of reward and words over all answers; pairs are resampled, not answers."""
    import numpy as np

    if len(rows) < 3:
        return Interval(None, None, None, len(rows))
    reward_N2 = np.asarray(rewards, dtype=float)
    words_N2 = np.asarray([[_words(row["chosen"]), _words(row["rejected"])] for row in rows], dtype=float)

    def pearson(place: Any) -> float:
        a, b = reward_N2[place].ravel(), words_N2[place].ravel()
        return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")

    rng, n = np.random.default_rng(seed), len(rows)
    drawn = np.asarray([pearson(rng.integers(n, size=n)) for _ in range(stats.RESAMPLES)])
    drawn = drawn[~np.isnan(drawn)]
    value = pearson(np.arange(n))
    if np.isnan(value) or not len(drawn):
        return Interval(None, None, None, n)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high), n)


def _longer(row: Row) -> int:
    return _words(row["chosen"]) - _words(row["rejected"])


def _words(turns: Sequence[Mapping[str, str]]) -> int:
    return len(_text(turns).split())


def _text(turns: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(turn["content"] for turn in turns)


def _turns(turns: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0
