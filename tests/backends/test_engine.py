"""Many requests on one model: the same answer in any company, work that is not done twice, and trouble."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import GREEDY, answers, ask, tiny_model

from cai.core.errors import CaiError, Permanent
from cai.core.types import Completion, Message, Request, Sampling

pytest_plugins = ["opened"]
slow = pytest.mark.slow

MIXED = [
    ask("hello " * (n % 5 + 1), Sampling((0, 0.7, 1.0)[n % 3], (1.0, 0.9)[n % 2], 10 + 7 * (n % 4)), seed=n)
    for n in range(24)
]


@slow
@pytest.mark.parametrize("reuse", [True, False])
async def test_an_answer_does_not_depend_on_who_else_is_asked(
    llama: Path, opened: Callable[..., Any], reuse: bool
) -> None:
    together = await answers(opened(llama, batch_size=8, reuse_prefix=reuse), MIXED)
    backwards = await answers(opened(llama, batch_size=5, reuse_prefix=reuse), MIXED[::-1])
    lonely = opened(llama, batch_size=1, reuse_prefix=False)
    alone = [await lonely.complete(request) for request in MIXED]
    assert together == backwards[::-1] == alone


def products_keep_their_rows(dtype: Any) -> bool:
    """Whether this machine's BLAS gives a row of a product the same bits for 8 rows and for 520."""
    import torch

    rows, weights = torch.randn(520, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    whole = torch.nn.functional.linear(rows, weights)
    return all(torch.equal(torch.nn.functional.linear(rows[:n], weights), whole[:n]) for n in (8, 16, 40, 264))


@slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_an_answers_numbers_are_the_same_to_the_last_bit_in_any_company(
    embedded: str, opened: Callable[..., Any], dtype: str
) -> None:
    import torch

    if not products_keep_their_rows(getattr(torch, dtype)):
        pytest.skip("this machine's matrix products depend on how many rows they have")
    long = ask("Repeat after me: " + "one two three four five " * 60, Sampling(0, 1, 12))
    requests = [ask("Name three fish.", Sampling(1.0, 1.0, 20), seed=1), long, ask("Why?", Sampling(0, 1, 20))]
    requests += [ask(f"What is {n} + {n}?", Sampling(1.0, 0.9, 12), seed=n) for n in range(6)]
    model = opened(embedded, dtype=dtype, logprobs=True)
    together = await answers(model, requests)
    lonely = opened(embedded, dtype=dtype, logprobs=True, reuse_prefix=False)
    assert [await lonely.complete(request) for request in requests] == together
    (once_more,) = await answers(model, requests[1:2])  # now from the keys and values that are left of it
    assert once_more == together[1]


@slow
async def test_the_seed_chooses_the_answer_and_greedy_has_none(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    warm, cold = Sampling(1.0, 1.0, 24), GREEDY
    sampled = await answers(model, [ask("hi", warm, seed=seed) for seed in (1, 1, 2, 3)])
    assert sampled[0] == sampled[1]
    assert len({answer.text for answer in sampled}) == 3
    greedy = await answers(model, [ask("hi", cold, seed=seed) for seed in (1, 2)])
    assert greedy[0] == greedy[1]


class Watched:
    """Rows that are counted, and disturbed before each pass."""

    def __init__(self, rows: Any, before: Callable[[Sequence[Any]], None] = lambda feeds: None) -> None:
        self.rows, self.before, self.fed = rows, before, 0

    def open(self, prompt: Sequence[int], **how: int) -> Any:
        return self.rows.open(prompt, **how)

    def close(self, row: Any, *, keep: bool = True) -> None:
        self.rows.close(row, keep=keep)

    def shrink(self) -> None:
        self.rows.shrink()

    def forward(self, feeds: Sequence[Any]) -> Any:
        self.before(feeds)
        self.fed += sum(len(feed.ids) for feed in feeds)
        return self.rows.forward(feeds)


def watch(model: Any, before: Callable[[Sequence[Any]], None] = lambda feeds: None) -> Watched:
    model._engine._rows = Watched(model._engine._rows, before)
    return model._engine._rows


@slow
async def test_a_prefix_shared_by_many_is_computed_once(llama: Path, opened: Callable[..., Any]) -> None:
    shared = "worked case. " * 20
    requests = [ask(shared + f"Question {n}?", Sampling(0, 1, 1)) for n in range(8)]
    fed = {}
    for reuse in (True, False):
        model = opened(llama, reuse_prefix=reuse)
        counter = watch(model)
        await answers(model, requests)
        fed[reuse] = counter.fed
    assert fed[True] < 0.3 * fed[False]


@slow
async def test_a_conversation_that_goes_on_is_not_computed_again(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    first = Request((Message("user", "Tell me a story. " * 8),), Sampling(0, 1, 40))
    answer = await model.complete(first)
    counter = watch(model)
    second = Request((*first.messages, Message("assistant", answer.text), Message("user", "Go on.")), Sampling(0, 1, 1))
    usage = (await model.complete(second)).usage
    assert counter.fed < usage.prompt_tokens - len("Tell me a story. " * 8)


@slow
async def test_a_score_computes_its_prompt_once(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    counter = watch(model)
    request = ask("Which is better? " * 15)
    length = len(model._tokenizer.render(request).ids)
    await model.score(request, [" (A)", " (B)", " (C)", " (D)"])
    assert counter.fed == length + len(" (A") + 3  # and of the other options only the letter


def out_of_memory_above(rows: int) -> Callable[[Sequence[Any]], None]:
    def before(feeds: Sequence[Any]) -> None:
        import torch

        if len(feeds) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    return before


@slow
async def test_out_of_memory_makes_the_batch_smaller_and_changes_no_answer(
    llama: Path, opened: Callable[..., Any]
) -> None:
    model, tight = opened(llama, batch_size=16), opened(llama, batch_size=16)
    watch(tight, out_of_memory_above(3))
    assert await answers(tight, MIXED) == await answers(model, MIXED)
    assert tight.status()["limit"] <= 3


@slow
async def test_a_request_too_big_for_the_memory_fails_alone(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)

    def before(feeds: Sequence[Any]) -> None:
        if any(len(feed.row.done) + len(feed.ids) > 200 for feed in feeds):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory")

    watch(model, before)
    requests = [ask("small"), ask("big " * 60), ask("little"), ask("last")]
    small, big, *others = await asyncio.gather(*map(model.complete, requests), return_exceptions=True)
    assert all(isinstance(answer, Completion) for answer in (small, *others))
    assert isinstance(big, Permanent) and big.kind == "out_of_memory"
    assert model.status()["limit"] == 32


@slow
async def test_out_of_memory_before_anything_runs_fails_that_request_alone(
    llama: Path, opened: Callable[..., Any]
) -> None:
    import torch

    model = opened(llama)
    rows = watch(model)

    def open_none_too_big(prompt: Sequence[int], **how: int) -> Any:
        if len(prompt) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows.rows.open(prompt, **how)

    rows.open = open_none_too_big  # type: ignore[method-assign]
    with pytest.raises(Permanent, match="out_of_memory"):
        await asyncio.wait_for(model.complete(ask("big " * 60)), 20)
    assert (await model.complete(ask("small"))).usage.completion_tokens


@slow
async def test_what_breaks_the_engine_reaches_everyone_who_waits(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama, batch_size=2)

    def before(feeds: Sequence[Any]) -> None:
        raise RuntimeError("the matrix is upside down")

    watch(model, before)
    results = await asyncio.wait_for(asyncio.gather(*map(model.complete, MIXED[:6]), return_exceptions=True), 20)
    assert all(isinstance(error, CaiError) and "upside down" in str(error) for error in results)
    with pytest.raises(CaiError, match="upside down"):
        await model.complete(ask("and afterwards?"))


@slow
async def test_numbers_that_overflow_are_a_failure_and_harm_no_other_answer(
    tmp_path: Path, opened: Callable[..., Any]
) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path / "poisoned")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.get_input_embeddings().weight.data[3 + ord("z") - ord("!")] = float("nan")
    model.save_pretrained(folder)
    model = opened(folder, batch_size=2)
    good = [ask("hello " * 20, Sampling(0, 1, 12)), ask("hallo " * 21, Sampling(1.0, 0.9, 12), seed=4)]
    before = await answers(model, good)
    for sampling in (Sampling(0, 1, 8), Sampling(1.0, 1.0, 8), Sampling(1.0, 0.9, 8)):
        with pytest.raises(Permanent, match="not_a_number"):
            await model.complete(ask("hello " * 22 + "zzz" * 15, sampling))  # longer, and in the same KV cache
    assert await answers(model, good) == before


@slow
async def test_a_cancelled_request_frees_its_row(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama, batch_size=1)
    passes = []

    def before(feeds: Sequence[Any]) -> None:
        passes.append(len(feeds))
        time.sleep(0.02)

    watch(model, before)
    tasks = [asyncio.create_task(model.complete(ask("hello", Sampling(1.0, 1.0, 450), seed=n))) for n in range(4)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    until_now = len(passes)
    await model.complete(ask("next", Sampling(0, 1, 3)))
    assert len(passes) - until_now <= 5  # at most one pass for the cancelled ones, beside the three tokens
    assert model.status()["in_flight"] == 0


@slow
async def test_closing_stops_at_once_and_tells_those_who_wait(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama, batch_size=1)
    watch(model, lambda feeds: time.sleep(0.01))
    tasks = [asyncio.create_task(model.complete(ask("hello", Sampling(1.0, 1.0, 450), seed=n))) for n in range(4)]
    await asyncio.sleep(0.1)
    await asyncio.wait_for(model.close(), 10)  # the four answers would take 18 s
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert all(isinstance(error, CaiError) for error in results)


@slow
def test_a_process_that_is_interrupted_ends_as_one(llama: Path) -> None:
    probe = """
import asyncio, os, signal, sys, threading
from cai.backends.local.options import LocalOptions
from cai.backends.transformers import BACKEND
from cai.core.types import Message, Request, Sampling
model = BACKEND.open(LocalOptions(model=sys.argv[1], device="cpu"))
async def main():
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    while True:
        requests = [Request((Message("user", f"{n}"),), Sampling(1.0, 1.0, 450), seed=n) for n in range(32)]
        await asyncio.gather(*map(model.complete, requests))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", probe, str(llama)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT, done.stderr  # and not SIGABRT out of a running product
