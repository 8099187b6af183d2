"""The model in this process: tiny random models of several architectures, and the embedded one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import tiny_model

from cai.backends.transformers import BACKEND, Options
from cai.errors import CaiError, Mistake, Permanent
from cai.types import Completion, Message, Request, Sampling

slow = pytest.mark.slow
GREEDY = Sampling(temperature=0, max_tokens=24)


def ask(text: str, sampling: Sampling = GREEDY, *, seed: int = 0, plain: bool = False) -> Request:
    return Request((Message("user", text),), sampling, seed, plain)


def test_naming_the_backend_imports_nothing_heavy() -> None:
    probe = (
        "import sys, cai.backends.transformers as t; t.Options();"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_options_refuse_what_they_do_not_know() -> None:
    for wrong in ({"modle": "x"}, {"device": "gpu"}, {"dtype": "int8"}, {"batch_size": 0}):
        with pytest.raises(ValidationError):
            Options(**wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "embedded" not in request.fixturenames:
        monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    """Opens models and closes them after the test."""
    models: list[Any] = []

    def open_one(model: Path | str, **options: Any) -> Any:
        models.append(BACKEND.open(Options(model=str(model), **{"dtype": "float32", "device": "cpu"} | options)))
        return models[-1]

    yield open_one
    for model in models:
        await model.close()


async def answers(model: Any, requests: Sequence[Request]) -> list[Completion]:
    return list(await asyncio.gather(*map(model.complete, requests)))


def generated(folder: Path, ids: Sequence[int], tokens: int) -> str:
    """What transformers' own `generate` answers greedily."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    output = model.generate(torch.tensor([list(ids)]), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return str(AutoTokenizer.from_pretrained(folder).decode(output[0, len(ids) :], skip_special_tokens=True))


# Right answers


@slow
@pytest.mark.parametrize(
    ("architecture", "way"),
    [("llama", "Ragged"), ("qwen2", "Ragged"), ("gpt2", "Ragged")]
    + [("sliding", "Serial"), ("mamba", "Serial"), ("alibi", "Serial")],
)
async def test_every_architecture_answers_as_its_own_generate_does(
    architecture: str, way: str, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    folder = tiny_model(tmp_path / architecture, architecture)
    model = opened(folder, batch_size=3)
    assert type(model._engine._rows).__name__ == way
    requests = [ask("hello " * (3 * n + 1), Sampling(0, 1, 12 + n)) for n in range(6)]
    for request, answer in zip(requests, await answers(model, requests), strict=True):
        ids = model._text.render(request).ids
        assert answer.text == generated(folder, ids, request.sampling.max_tokens)


@slow
async def test_a_long_prompt_is_computed_in_parts_and_answers_the_same(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    model._engine._step_tokens = 7
    request = ask("a long story " * 20)
    assert (await model.complete(request)).text == generated(llama, model._text.render(request).ids, 24)


@slow
async def test_a_score_is_that_of_one_plain_forward_pass(llama: Path, opened: Callable[..., Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = opened(llama)
    plain = AutoModelForCausalLM.from_pretrained(llama).eval()
    request, continuations = ask("Which? " * 30), [" (A)", " (B)", " something much longer, and then some"]
    prompt = model._text.render(request)
    for text, score in zip(continuations, await model.score(request, continuations), strict=True):
        added = model._text.continuation(prompt, text)
        logits = plain(torch.tensor([[*prompt.ids, *added]])).logits[0, len(prompt.ids) - 1 : -1]
        expected = torch.log_softmax(logits, -1)[range(len(added)), list(added)].sum().item()
        assert score.logprob == pytest.approx(expected, abs=1e-4)
        assert score.tokens == len(added)


@slow
async def test_token_logprobs_are_kept_when_asked_for_and_agree_with_score(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama, logprobs=True)
    request = ask("hello", Sampling(1.0, 1.0, 20), seed=3)
    answer = await model.complete(request)
    (score,) = await model.score(request, [answer.text])
    assert len(answer.logprobs) == answer.usage.completion_tokens
    if answer.finish == "length" and score.tokens == len(answer.logprobs):  # else its bytes were not whole characters
        assert sum(answer.logprobs) == pytest.approx(score.logprob, abs=1e-3)
    assert (await opened(llama).complete(request)).logprobs is None


# The same answer in any company


MIXED = [
    ask("hello " * (n % 5 + 1), Sampling((0, 0.7, 1.0)[n % 3], (1.0, 0.9)[n % 2], 10 + 7 * (n % 4)), seed=n) for n in range(24)
]


@slow
@pytest.mark.parametrize("reuse", [True, False])
async def test_an_answer_does_not_depend_on_who_else_is_asked(llama: Path, opened: Callable[..., Any], reuse: bool) -> None:
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


@slow
@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.floats(0.1, 0.99), st.integers(0, 2**31))
def test_a_draw_stays_inside_the_nucleus_and_never_hits_the_impossible(logits: list[float], top_p: float, seed: int) -> None:
    import random

    import torch

    from cai.backends._sampling import draw

    row = torch.tensor([*logits, float("-inf")])
    probs, order = torch.softmax(row, -1).sort(descending=True, stable=True)
    size = int(((probs.cumsum(-1) - probs) < top_p - 1e-6).sum())
    nucleus = {order[n].item() for n in range(len(order)) if probs[n] >= probs[size - 1] - 1e-6}
    uniform = random.Random(seed)
    numbers = [0.0, 1 - 2**-53, *(uniform.random() for _ in range(20))]
    drawn = draw(row.repeat(len(numbers), 1), [(Sampling(1.0, top_p), number) for number in numbers]).tolist()
    assert set(drawn) <= nucleus
    everything = draw(row.repeat(len(numbers), 1), [(Sampling(1.0), number) for number in numbers]).tolist()
    assert len(logits) not in everything


@slow
def test_draws_follow_the_probabilities() -> None:
    import torch

    from cai.backends._sampling import draw

    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count = 2000
    numbers = [(n + 0.5) / count for n in range(count)]
    drawn = draw(probs.log().repeat(count, 1), [(Sampling(1.0), number) for number in numbers])
    assert (torch.bincount(drawn, minlength=4) / count).tolist() == pytest.approx(probs.tolist(), abs=0.002)


# Reuse of prefixes


class Watched:
    """Rows that are counted, and disturbed before each pass."""

    def __init__(self, rows: Any, before: Callable[[Sequence[Any]], None] = lambda feeds: None) -> None:
        self.rows, self.before, self.fed = rows, before, 0

    def open(self, prompt: Sequence[int], **how: int) -> Any:
        return self.rows.open(prompt, **how)

    def close(self, row: Any) -> None:
        self.rows.close(row)

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
    length = len(model._text.render(request).ids)
    await model.score(request, [" (A)", " (B)", " (C)", " (D)"])
    assert length < counter.fed < length + 4 * 8


# Where an answer ends


@slow
async def test_a_stop_text_ends_the_answer_and_is_not_in_it(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    whole = (await model.complete(ask("hello", Sampling(1.0, 1.0, 200), seed=5))).text
    stop = whole[20:22]
    answer = await model.complete(ask("hello", Sampling(1.0, 1.0, 200, stop=(stop, "never in there")), seed=5))
    assert answer.text == whole.partition(stop)[0]
    assert answer.finish == "stop"
    assert answer.usage.completion_tokens < 200


@slow
async def test_max_tokens_and_the_end_token_end_an_answer(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    many = await answers(model, [ask("hello", Sampling(1.0, 1.0, 400), seed=seed) for seed in range(8)])
    assert any(answer.finish == "stop" and answer.usage.completion_tokens < 400 for answer in many)
    assert all("<|end|>" not in answer.text for answer in many)
    short = await model.complete(ask("hello", Sampling(0, 1, 5)))
    assert (short.finish, short.usage.completion_tokens) == ("length", 5)


@slow
async def test_what_does_not_fit_is_an_error_and_never_cut(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    with pytest.raises(Permanent, match="context_too_long"):
        await model.complete(ask("x" * 600))
    with pytest.raises(Permanent, match="context_too_long"):
        await model.score(ask("x" * 400), ["y" * 200])
    nearly = await model.complete(ask("x" * 460, Sampling(0, 1, 400)))
    assert nearly.usage.prompt_tokens + nearly.usage.completion_tokens <= 512
    with pytest.raises(Permanent, match="empty_prompt"):
        await model.complete(ask("", plain=True))


@slow
async def test_reasoning_is_split_off_also_when_the_template_opens_it(tmp_path: Path, opened: Callable[..., Any]) -> None:
    folder = tiny_model(tmp_path / "thinker", chat="{{ messages[0].content }}<|end|>assistant: <think>\n")
    answer = await opened(folder).complete(ask("hello", Sampling(1.0, 1.0, 20)))
    assert answer.text == "" and answer.thinking


# What a message says is data


@slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(st.sampled_from(["<|end|>", "<|start|>", "<|", "|>", "end", "<unk>", "start", " "]), st.text(max_size=4)),
        max_size=12,
    )
)
def test_no_content_becomes_a_control_token(llama: Path, pieces: list[str]) -> None:
    from transformers import AutoTokenizer

    from cai.backends._text import Text

    tokenizer = AutoTokenizer.from_pretrained(llama)
    text, content = Text(tokenizer, "tiny"), "".join(pieces)
    controls = {0, 1, 2}
    assert controls.isdisjoint(tokenizer(text.neutral(content), add_special_tokens=False).input_ids)
    chat = text.render(ask(content)).ids
    assert [token for token in chat if token in controls] == [1, 0, 1]  # the template's own, and no other
    if content:
        assert controls.isdisjoint(text.render(ask(content, plain=True)).ids[1:])


@slow
def test_a_control_token_is_broken_up_where_one_can_see_it(llama: Path) -> None:
    from transformers import AutoTokenizer

    from cai.backends._text import Text

    text = Text(AutoTokenizer.from_pretrained(llama), "tiny")
    assert text.neutral("end it: <|end|>") == "end it: <| end |>"
    assert text.neutral("<|e<|end|>nd|>") == "<|e<| end |>nd|>"
    assert text.neutral("half an emoji: \ud83d") == "half an emoji: \N{REPLACEMENT CHARACTER}"
    assert text.neutral("nothing to see") == "nothing to see"


@slow
async def test_a_model_without_a_chat_template_can_only_continue_text(tmp_path: Path, opened: Callable[..., Any]) -> None:
    model = opened(tiny_model(tmp_path / "base", chat=None))
    with pytest.raises(Mistake, match="has no chat template"):
        await model.complete(ask("hello"))
    assert (await model.complete(ask("Once upon a", plain=True))).usage.completion_tokens


@slow
async def test_a_chat_template_that_refuses_fails_the_row_only(tmp_path: Path, opened: Callable[..., Any]) -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}{{ messages[0].content }}"
    model = opened(tiny_model(tmp_path / "picky", chat=refuses))
    with pytest.raises(Permanent, match="no system turn"):
        await model.complete(Request((Message("system", "Be brief."), Message("user", "hi")), GREEDY))
    assert (await model.complete(ask("hello"))).usage.completion_tokens


# Trouble


def out_of_memory_above(rows: int) -> Callable[[Sequence[Any]], None]:
    def before(feeds: Sequence[Any]) -> None:
        import torch

        if len(feeds) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    return before


@slow
async def test_out_of_memory_makes_the_batch_smaller_and_changes_no_answer(llama: Path, opened: Callable[..., Any]) -> None:
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
    requests = [ask("small"), ask("big " * 60), ask("little")]
    small, big, little = await asyncio.gather(*map(model.complete, requests), return_exceptions=True)
    assert isinstance(small, Completion) and isinstance(little, Completion)
    assert isinstance(big, Permanent) and big.kind == "out_of_memory"
    assert model.status()["limit"] == 32


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
async def test_numbers_that_overflow_are_a_failure_and_not_an_answer(llama: Path, opened: Callable[..., Any]) -> None:
    import torch

    model = opened(llama)
    rows = watch(model)
    honest = rows.forward
    rows.forward = lambda feeds: torch.full_like(honest(feeds), float("nan"))  # type: ignore[method-assign]
    with pytest.raises(Permanent, match="not_a_number"):
        await model.complete(ask("hello"))


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
    start = time.perf_counter()
    await model.close()
    assert time.perf_counter() - start < 2
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert all(isinstance(error, CaiError) for error in results)


# Identity


@slow
async def test_identity_follows_weights_and_precision_and_nothing_else(
    llama: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    identity = opened(llama).identity
    import shutil

    shutil.copytree(llama, tmp_path / "copy")
    assert opened(tmp_path / "copy", batch_size=2, reuse_prefix=False).identity == identity
    assert opened(llama, dtype="bfloat16").identity != identity
    assert opened(tiny_model(tmp_path / "other", seed=1)).identity != identity


@slow
def test_what_is_no_language_model_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(Mistake) as caught:
        BACKEND.open(Options(model=str(tmp_path)))
    assert "cannot be loaded" in str(caught.value) and "\n" not in str(caught.value)


@slow
def test_a_device_that_is_not_there_is_refused(llama: Path) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(Mistake, match="device: mps"):
        BACKEND.open(Options(model=str(llama), device="mps"))


# The embedded model


@pytest.fixture
def embedded() -> str:
    from cai.backends._weights import locate

    try:
        locate("smollm2-135m-instruct")
    except Mistake as mistake:
        pytest.skip(f"the embedded model cannot be had here: {mistake}")
    return "smollm2-135m-instruct"


@slow
async def test_the_embedded_model_answers_and_repeats_itself(embedded: str, opened: Callable[..., Any]) -> None:
    requests = [ask(text, Sampling(0.8, 0.95, 32), seed=7) for text in ("What is bread?", "Name three fish.", "Why?")]
    for dtype in ("float32", "auto"):
        model = opened(embedded, dtype=dtype)
        together = await answers(model, requests)
        assert all(answer.text and answer.usage.completion_tokens > 3 for answer in together)
        assert "<|im_end|>" not in "".join(answer.text for answer in together)
        if dtype == "float32":
            assert [await model.complete(request) for request in requests] == together


@slow
async def test_the_embedded_model_is_loaded_offline_in_a_moment(embedded: str) -> None:
    probe = """
import socket, time
def refuse(*_): raise SystemExit("it asked the network")
socket.socket.connect = refuse
from cai.backends._loading import locate, _read
import torch
weights = locate("smollm2-135m-instruct")
_read("warm", weights, torch.float32)
start = time.perf_counter()
_read("again", weights, torch.float32)
print(time.perf_counter() - start)
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 5  # about one second; the bound is for a busy machine
