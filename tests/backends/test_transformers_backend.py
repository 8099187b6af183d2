"""The model in this process: several architectures as tiny random models, and the embedded one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny import answers, ask, tiny_model

from cai.backends.local.options import LocalOptions
from cai.backends.transformers import BACKEND
from cai.core.errors import CaiError, Mistake, Permanent
from cai.core.types import Sampling

pytest_plugins = ["opened"]
slow = pytest.mark.slow


def test_naming_the_backend_imports_nothing_heavy() -> None:
    probe = (
        "import sys, cai.backends.transformers as t; t.BACKEND.options();"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_options_refuse_what_they_do_not_know() -> None:
    for wrong in ({"modle": "x"}, {"device": "gpu"}, {"dtype": "int8"}, {"batch_size": 0}):
        with pytest.raises(ValidationError):
            LocalOptions(**wrong)  # type: ignore[arg-type]


def generated(folder: Path, ids: Sequence[int], tokens: int) -> str:
    """What transformers' own `generate` answers greedily."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    output = model.generate(torch.tensor([list(ids)]), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return str(AutoTokenizer.from_pretrained(folder).decode(output[0, len(ids) :], skip_special_tokens=True))


@slow
@pytest.mark.parametrize(
    ("architecture", "way"),
    [
        ("llama", "Ragged"),
        ("qwen2", "Ragged"),
        ("gpt2", "Ragged"),
        ("sliding", "Serial"),
        ("mamba", "Serial"),
        ("alibi", "Serial"),
    ],
)
async def test_every_architecture_answers_as_its_own_generate_does(
    architecture: str, way: str, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    folder = tiny_model(tmp_path / architecture, architecture)
    model = opened(folder, batch_size=3)
    assert type(model._engine._rows).__name__ == way
    requests = [ask("hello " * (3 * n + 1), Sampling(0, 1, 12 + n)) for n in range(6)]
    for request, answer in zip(requests, await answers(model, requests), strict=True):
        ids = model._tokenizer.render(request).ids
        assert answer.text == generated(folder, ids, request.sampling.max_tokens)


@slow
async def test_a_long_prompt_is_computed_in_parts_and_answers_the_same(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    model._engine._step_tokens = 7
    request = ask("a long story " * 20)
    assert (await model.complete(request)).text == generated(llama, model._tokenizer.render(request).ids, 24)


OPTIONS = [
    [" (A)", " (B)", " something much longer, and then some"],
    ["x"],
    ["yes", "yes, it is", "yes, it was", "y", "no", "yes, it is"],
    ["abcdef", "abc", "abcxyz", "b", "abcxy"],
]


@slow
@pytest.mark.parametrize(
    ("architecture", "step"), [("llama", 512), ("llama", 5), ("gpt2", 64), ("sliding", 7), ("mamba", 512)]
)
async def test_scores_are_those_of_plain_forward_passes(
    architecture: str, step: int, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path / architecture, architecture)
    model = opened(folder, batch_size=3)
    model._engine._step_tokens = step
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    requests = [ask("Which? " * (1 + 7 * n)) for n in range(len(OPTIONS))]
    found = await asyncio.gather(*map(model.score, requests, OPTIONS))
    for request, options, scores in zip(requests, OPTIONS, found, strict=True):
        prompt = model._tokenizer.render(request)
        for text, score in zip(options, scores, strict=True):
            added = model._tokenizer.continuation(prompt, text)
            logits = plain(torch.tensor([[*prompt.ids, *added]])).logits[0, len(prompt.ids) - 1 : -1]
            expected = torch.log_softmax(logits, -1)[range(len(added)), list(added)].sum().item()
            assert score.logprob == pytest.approx(expected, abs=1e-4)
            assert score.tokens == len(added)


@slow
async def test_token_logprobs_are_kept_when_asked_for_and_agree_with_score(
    llama: Path, opened: Callable[..., Any]
) -> None:
    model = opened(llama, logprobs=True)
    request = ask("hello", Sampling(1.0, 1.0, 20), seed=3)
    answer = await model.complete(request)
    (score,) = await model.score(request, [answer.text])
    assert len(answer.logprobs) == answer.usage.completion_tokens
    if answer.finish == "length" and score.tokens == len(answer.logprobs):  # else its bytes were not whole characters
        assert sum(answer.logprobs) == pytest.approx(score.logprob, abs=1e-3)
    assert (await opened(llama).complete(request)).logprobs is None


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
async def test_identity_follows_weights_and_precision_and_nothing_else(
    llama: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    identity = opened(llama).identity
    shutil.copytree(llama, tmp_path / "copy")
    assert opened(tmp_path / "copy", batch_size=2, reuse_prefix=False).identity == identity
    assert opened(llama, dtype="bfloat16").identity != identity
    assert opened(tiny_model(tmp_path / "other", seed=1)).identity != identity


@slow
def test_what_is_no_language_model_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(Mistake) as caught:
        BACKEND.open(LocalOptions(model=str(tmp_path)))
    assert "cannot be loaded" in str(caught.value) and "\n" not in str(caught.value)


@slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b'{"model_type": 5}'),
        ("config.json", b'{"model_type": "llama", "hidden_size": "many"}'),
        ("config.json", b'{"model_type": "llama", "hidden_size": 48, "num_attention_heads": 0}'),
        ("model.safetensors", b""),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("model.safetensors", b"\xff" * 500),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
        ("model.safetensors", 3000),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", 300),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"{,"),
        ("generation_config.json", b"[]"),
    ],
)
def test_a_damaged_file_of_a_model_is_one_clear_sentence(
    llama: Path, tmp_path: Path, file: str, content: bytes | int, opened: Callable[..., Any]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(llama, folder)
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(Mistake) as caught:
        opened(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


CODE = "from pathlib import Path\nPath({marker!r}).write_text('it ran')\nraise ImportError\n"


@slow
@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json", "a model that transformers has too"])
def test_code_in_a_models_folder_is_never_run_and_never_asked_about(llama: Path, tmp_path: Path, place: str) -> None:
    folder, marker = tmp_path / "model", tmp_path / "marker"
    shutil.copytree(llama, folder)
    for name in ("configuration_x.py", "modeling_x.py", "tokenization_x.py"):
        (folder / name).write_text(CODE.format(marker=str(marker)))
    code = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}
    file, more = folder / "config.json", {"auto_map": code, "model_type": "x"}
    if place == "tokenizer_config.json":
        (folder / "tokenizer.json").unlink()
        file, more = folder / place, {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}, "tokenizer_class": "X"}
    elif place != "config.json":
        more = {"auto_map": code}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    probe = f"""
from cai.backends.local.options import LocalOptions
from cai.backends.transformers import BACKEND
model = BACKEND.open(LocalOptions(model={str(folder)!r}, device="cpu"))
print("opened")
"""
    done = subprocess.run([sys.executable, "-c", probe], input="y\n" * 20, capture_output=True, text=True)
    if "transformers has too" in place:
        assert done.stdout == "opened\n", done.stderr
    else:
        error = done.stderr.splitlines()[-1]
        assert error.startswith(f"cai.core.errors.Mistake: {folder}: needs Python code of its own ({place}"), (
            done.stderr
        )
        assert done.stdout == "", "nothing is asked"
    assert not marker.exists()


@slow
async def test_a_gguf_file_is_a_model(tmp_path: Path, opened: Callable[..., Any]) -> None:
    from gguf import GGMLQuantizationType
    from safetensors import safe_open
    from test_weights import tiny_gguf

    for kind, stored in ((GGMLQuantizationType.F32, "bfloat16"), (GGMLQuantizationType.F16, "float16")):
        file = tmp_path / f"{stored}.gguf"
        content = tiny_gguf(file, kind)
        model = opened(file)
        answer = await model.complete(ask("Hello", Sampling(0, 1, 8), plain=True))
        assert answer.usage.completion_tokens == 8
        sha256 = hashlib.sha256(content).hexdigest()
        identity = {"engine": "transformers", "model": "gguf", "weights": sha256, "dtype": "float32"}
        assert dict(model.identity) == identity
        (folder,) = (tmp_path / "cache" / "models").glob(f"gguf-{sha256[:12]}")
        with safe_open(folder / "model.safetensors", "pt") as weights:
            assert {str(weights.get_tensor(name).dtype) for name in weights.keys()} == {f"torch.{stored}"}  # noqa: SIM118
        before = (folder / "complete.json").stat().st_mtime_ns
        copy = tmp_path / "elsewhere" / "copy.gguf"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
        assert await opened(copy).complete(ask("Hello", Sampling(0, 1, 8), plain=True)) == answer
        assert (folder / "complete.json").stat().st_mtime_ns == before, "converted once"


@slow
@pytest.mark.parametrize("content", [b"", b"GGUF", b"\x00" * 5000, b"version https://git-lfs", 700, -3000])
def test_a_damaged_gguf_file_is_one_clear_sentence(
    tmp_path: Path, opened: Callable[..., Any], content: bytes | int
) -> None:
    from test_weights import tiny_gguf

    whole = tiny_gguf(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(Mistake) as caught:
        opened(tmp_path / "x.gguf")
    assert str(tmp_path / "x.gguf") in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "models").glob("gguf-*"))


@slow
def test_a_device_that_is_not_there_is_refused(llama: Path) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(Mistake, match="device: mps"):
        BACKEND.open(LocalOptions(model=str(llama), device="mps"))


@slow
def test_an_id_on_the_hub_is_pinned_to_its_commit_and_works_from_the_hubs_cache(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    tiny_model(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    probe = """
import asyncio
from cai.backends.local.options import LocalOptions
from cai.backends.transformers import BACKEND
from cai.core.types import Message, Request, Sampling
model = BACKEND.open(LocalOptions(model="someone/tiny", dtype="float32", device="cpu"))
answer = asyncio.run(model.complete(Request((Message("user", "hi"),), Sampling(0, 1, 5))))
print(answer.usage.completion_tokens, dict(model.identity))
asyncio.run(model.close())
"""
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment)
    identity = {"engine": "transformers", "model": "someone/tiny", "revision": commit, "dtype": "float32"}
    assert done.stdout.strip() == f"5 {identity}", done.stderr


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
def test_the_embedded_model_is_loaded_offline_in_a_moment(embedded: str) -> None:
    probe = """
import socket, time
def refuse(*_): raise SystemExit("it asked the network")
socket.socket.connect = refuse
from cai.backends.local.load import _read, find_weights
import torch
weights = find_weights("smollm2-135m-instruct")
_read("warm", weights, torch.float32)
start = time.perf_counter()
_read("again", weights, torch.float32)
print(time.perf_counter() - start)
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 5  # about one second; the bound is for a busy machine


@slow
async def test_closing_twice_is_closing_once(llama: Path, opened: Callable[..., Any]) -> None:
    model = opened(llama)
    await model.close()
    await model.close()
    with pytest.raises(CaiError, match="closed"):
        await model.complete(ask("Hello"))
