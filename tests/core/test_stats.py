"""Intervals: known coverage, the same every time, and honest about one value or none."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.core.stats import Interval, change, interval

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50)


def test_no_value_has_no_mean_and_one_value_no_interval() -> None:
    assert interval([]) == Interval(None, None, None, 0)
    assert interval([3.0]) == Interval(3.0, None, None, 1)


@given(st.lists(st.floats(-1e6, 1e6), max_size=5))
def test_an_interval_is_always_valid_json(values: list[float]) -> None:
    json.dumps(asdict(interval(values)), allow_nan=False)


@given(NUMBERS)
def test_the_interval_lies_within_the_values(values: list[float]) -> None:
    found = interval(values)
    assert found.low is not None
    assert found.high is not None
    slack = 1e-9 * (1 + max(map(abs, values)))  # the mean of equal floats may differ from them in the last bit
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


def test_the_same_values_and_seed_give_the_same_interval_whatever_numpy_did_before() -> None:
    np.random.seed(1)  # global state, on purpose: it must not matter
    values = [number**1.5 for number in range(30)]
    first = interval(values, seed=5)
    np.random.random(100)
    assert interval(values, seed=5) == first
    assert interval(values, seed=6) != first


def test_a_95_percent_interval_holds_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(7, 3, size=40) for _ in range(200)]
    hits = sum(found.low <= 7 <= found.high for found in (interval(list(s)) for s in samples))  # type: ignore[operator]
    assert 180 <= hits <= 198


def test_more_values_make_a_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = (interval(list(rng.normal(0, 1, size=n))) for n in (20, 2000))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)  # type: ignore[operator]


def test_the_median_ignores_one_wild_value() -> None:
    assert interval([1, 2, 3, 4, 1e9], "median").value == 3


def test_change_is_paired() -> None:
    found = change([100, 200, 300, 400], [90, 190, 290, 390])
    assert found == Interval(-10.0, -10.0, -10.0, 4)  # unpaired, the spread of the prompts would drown it


def test_change_refuses_sides_of_different_lengths() -> None:
    with pytest.raises(ValueError):
        change([1, 2], [1])


def test_many_values_stay_within_memory() -> None:
    assert interval(range(200_000)).n == 200_000
