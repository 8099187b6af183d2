"""Converts GGUF files to folders of safetensors and tokenizer files, once: loading then takes one second, not thirty.

A converted model is kept in the cache under the digest of its GGUF file. A damaged one is made again.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from errno import ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP
from pathlib import Path
from typing import Any

from filelock import FileLock

from cai.backends.local.download import KnownModel, download_model
from cai.backends.local.model_cache import MARKER, cache_folder, folder_digests, read_cached_json, write_cached_json
from cai.backends.local.quiet import quiet_transformers
from cai.core.errors import CaiError, Mistake

log = logging.getLogger("cai")

FORMAT = 1
"""Raise it when the conversion changes: folders made by an older one are then made again."""
_NO_LOCKS = (ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP)


def known_model_folder(name: str, known: KnownModel) -> Path:
    """The folder of a model of `models.yaml`, downloaded and converted on first use. Raises Mistake.

    Its weights stay in 32 bits: a 4-bit weight times its scale plus its minimum has more digits than 16 bits hold, and
    answers of this model that are in journals must not change.
    """
    return _converted(name, known.sha256, lambda folder: (download_model(name, known, folder), None))


def local_gguf_folder(file: Path, sha256: str) -> Path:
    """The folder converted from a GGUF file on disk, with weights in 16 bits. Raises Mistake."""
    return _converted("gguf", sha256, lambda folder: (file, _half_precision(file)))


def _converted(name: str, sha256: str, source: Callable[[Path], tuple[Path, Any]]) -> Path:
    """`source` gets a temporary folder and returns the GGUF file and the precision to keep; None keeps 32 bits."""
    models = cache_folder() / "models"
    folder = models / f"{name}-{sha256[:12]}"
    if _is_complete(folder, sha256):
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f"{name}.lock"):  # of two processes, one converts and the other waits
            if not _is_complete(folder, sha256):
                _build(name, sha256, source, folder)
    except OSError as error:
        fix = "free some disk space, or set CAI_CACHE to another folder"
        raise Mistake(str(models), f"the model cannot be kept here ({error})", fix) from error
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # filelock raises the latter where there is no flock
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        log.warning("%s: this file system has no locks; do not start two runs at once the first time", path.parent)
    try:
        yield
    finally:
        lock.release()


def _is_complete(folder: Path, sha256: str) -> bool:
    """Whether the marker, which is written last, agrees with every file in the folder."""
    marker = read_cached_json(folder / MARKER)
    if marker.get("format") != FORMAT or marker.get("source") != sha256:
        return False
    return bool(marker.get("files")) and folder_digests(folder) == marker["files"]


def _build(name: str, sha256: str, source: Callable[[Path], tuple[Path, Any]], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as temporary:
        gguf, dtype = source(Path(temporary))
        log.info("converting %s, once", gguf.name)
        made = Path(temporary) / "model"
        try:
            _convert(gguf, made, dtype)
        except (CaiError, OSError):
            raise
        except Exception as error:  # gguf and transformers raise many unrelated classes for a file they cannot read
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            fix = "serve it with llama.cpp or Ollama, and use backend: openai"
            raise Mistake(str(gguf), f"cannot be converted: {first[:300]}", fix) from error
        write_cached_json(made / MARKER, {"format": FORMAT, "source": sha256, "files": folder_digests(made)})
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)


def _convert(gguf: Path, folder: Path, dtype: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": gguf.name, "trust_remote_code": False}
    with quiet_transformers(), redirect_stderr(io.StringIO()):  # it draws a progress bar of its own in any case
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), **given, **({"dtype": dtype} if dtype else {}))
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **given)
        # transformers refuses to save or train what is marked as quantised, and these weights no longer are
        del model.config.quantization_config, model.quantization_method
        model.hf_quantizer, model.is_quantized = None, False
        model.config._name_or_path = model.name_or_path = folder.name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _half_precision(file: Path) -> Any:
    """float16 if the matrices in the file are float16, else bfloat16, which has the range of every other format."""
    import torch
    from gguf import GGMLQuantizationType, GGUFReader

    try:
        kinds = {tensor.tensor_type for tensor in GGUFReader(file).tensors if len(tensor.shape) > 1}
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise Mistake(str(file), f"is not a GGUF file, or a damaged one: {error}", "download it again") from error
    return torch.float16 if kinds == {GGMLQuantizationType.F16} else torch.bfloat16
