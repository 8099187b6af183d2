"""Measures how much of the labels length, list markup and preambles predict, so that a reward need not learn it.

A logistic regression of the labels on the differences of these features, chosen minus rejected, without an intercept,
because the sides have no order. Its prediction is added to the difference of the rewards during training, so that the
reward gains nothing from these features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_LIST = re.compile(r"^[^\S\n]*+(?:[-*+•]|\d+[.)]|#{1,6})\s", re.MULTILINE)
_PREAMBLE = re.compile(
    r"\W{0,3}(?:(?:sure|certainly|of course|absolutely|great|good|excellent|wonderful|thank)\b|"
    r"(?:here(?:['’]s| is| are)|what an?|that(?:['’]s| is) an? (?:great|good|excellent|wonderful))\b)",
    re.IGNORECASE,
)


def length_feature(answer: str) -> float:
    """Length in hundreds of words."""
    return len(answer.split()) / 100


def markup_feature(answer: str) -> float:
    """Share of lines that start a list item or a heading."""
    lines = [line for line in answer.splitlines() if line.strip()]
    return len(_LIST.findall(answer)) / len(lines) if lines else 0.0


def preamble_feature(answer: str) -> float:
    """1 where the answer opens with praise, thanks or an announcement, else 0."""
    return float(bool(_PREAMBLE.match(answer[:80])))


FEATURES: Mapping[str, Callable[[str], float]] = {
    "length": length_feature,
    "markup": markup_feature,
    "preamble": preamble_feature,
}


def differences(rows: Sequence[Row], features: Sequence[str]) -> list[list[float]]:
    """Chosen minus rejected, for each row and feature."""
    return [
        [FEATURES[name](_text(row["chosen"])) - FEATURES[name](_text(row["rejected"])) for name in features]
        for row in rows
    ]


def fit_biases(rows: Sequence[Row], features: Sequence[str]) -> dict[str, float]:
    """Log-odds that one unit of each feature adds to being chosen (a ridge of 1e-3 keeps the fit finite)."""
    import numpy as np
    from scipy.optimize import minimize

    x_NF = np.asarray(differences(rows, features), dtype=float).reshape(len(rows), len(features))
    p_N = np.asarray([row["p_chosen"] for row in rows], dtype=float)
    scale_F = np.where(spread := np.sqrt((x_NF**2).mean(0)), spread, 1.0)
    x_NF = x_NF / scale_F

    def loss(weight_F: Any) -> tuple[float, Any]:
        d_N = x_NF @ weight_F
        value = (np.logaddexp(0, -d_N) + (1 - p_N) * d_N).mean() + 1e-3 * (weight_F**2).sum()
        slope_F = x_NF.T @ (1 / (1 + np.exp(-d_N)) - p_N) / len(p_N) + 2e-3 * weight_F
        return float(value), slope_F

    found = minimize(loss, np.zeros(len(features)), jac=True, method="L-BFGS-B")
    return {name: float(weight) for name, weight in zip(features, found.x / scale_F, strict=True)}


def terms(rows: Sequence[Row], fitted: Mapping[str, float]) -> list[float]:
    """For each row, the log-odds of being chosen that the fitted features explain."""
    return [
        sum(weight * one for weight, one in zip(fitted.values(), each, strict=True))
        for each in differences(rows, list(fitted))
    ]


def _text(turns: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(turn["content"] for turn in turns)
