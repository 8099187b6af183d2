"""Drawing a token: inside the nucleus, never the impossible, as often as its probability says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.core.types import Sampling

slow = pytest.mark.slow


@slow
@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.floats(0.1, 0.99), st.integers(0, 2**31))
def test_a_draw_stays_inside_the_nucleus_and_never_hits_the_impossible(
    logits: list[float], top_p: float, seed: int
) -> None:
    import torch

    from cai.backends.local.sampling import sample_tokens

    row = torch.tensor([*logits, float("-inf")])
    probs, order = torch.softmax(row, -1).sort(descending=True, stable=True)
    size = int(((probs.cumsum(-1) - probs) < top_p - 1e-6).sum())
    nucleus = {order[n].item() for n in range(len(order)) if probs[n] >= probs[size - 1] - 1e-6}
    uniform = random.Random(seed)
    numbers = [0.0, 1 - 2**-53, *(uniform.random() for _ in range(20))]
    drawn = sample_tokens(row.repeat(len(numbers), 1), [(Sampling(1.0, top_p), number) for number in numbers]).tolist()
    assert set(drawn) <= nucleus
    everything = sample_tokens(row.repeat(len(numbers), 1), [(Sampling(1.0), number) for number in numbers]).tolist()
    assert len(logits) not in everything


@slow
def test_draws_follow_the_probabilities() -> None:
    import torch

    from cai.backends.local.sampling import sample_tokens

    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count = 2000
    numbers = [(n + 0.5) / count for n in range(count)]
    drawn = sample_tokens(probs.log().repeat(count, 1), [(Sampling(1.0), number) for number in numbers])
    assert (torch.bincount(drawn, minlength=4) / count).tolist() == pytest.approx(probs.tolist(), abs=0.002)
