"""Finds the weights that a model's name stands for, on disk and checked, and gives them an identity.

A name is one of three things: a model of `models.yaml` (fetched and converted once into the cache folder), a local
folder, or an id on the Hugging Face hub. The cache folder is `$CAI_CACHE`, else `$XDG_CACHE_HOME/cai`, else
`~/.cache/cai`.

Left out on purpose: deleting old models from the cache; it is a plain folder.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
from filelock import FileLock
from ruamel.yaml import YAML

from cai.backends.local.download import KnownModel, download_model, sha256
from cai.core.errors import Mistake
from cai.core.plugins import suggest
from cai.core.seeds import digest

log = logging.getLogger("cai")

FORMAT = 1
"""Raised when the conversion changes, so that folders made by an older one are made again."""
_MARKER = "complete.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_RELEVANT = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
_LEFTOVERS = {_MARKER, "training_args.bin", "trainer_state.json"}


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a model's weights are, and what identifies them."""

    folder: str
    identity: tuple[tuple[str, str], ...]
    """What in the identity of the model speaks of its weights."""


def known_models() -> dict[str, KnownModel]:
    """The table of models that are known by a short name."""
    table = YAML(typ="safe").load(Path(__file__).with_name("models.yaml"))
    return pydantic.TypeAdapter(dict[str, KnownModel]).validate_python(table)


def find_weights(model: str, revision: str | None = None) -> Weights:
    """The weights that `model` names, fetched if need be. Raises Mistake."""
    known = known_models()
    if model in known:
        folder = _converted(model, known[model])
        return Weights(str(folder), (("model", model), ("weights", known[model].sha256)))
    if Path(model).is_dir():
        return _local(Path(model).resolve())
    if _HUB_ID.fullmatch(model) and not model.startswith("."):
        return _hub(model, revision)
    raise Mistake(model, "is no known model, no folder here and no id on the hub", suggest(model, sorted(known)))


def cache_folder() -> Path:
    """Where models and the digests of big files are kept between runs."""
    if chosen := os.environ.get("CAI_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cai"


def _local(folder: Path) -> Weights:
    if not (folder / "config.json").is_file():
        raise Mistake(str(folder), "holds no model (there is no config.json)", "name a folder made by save_pretrained")
    contents = digest(file_digests(folder))
    # the folder's own name and place are not in it: a copy of a model is the same model
    return Weights(str(folder), (("model", "folder"), ("weights", contents)))


def _hub(model: str, revision: str | None) -> Weights:
    """Everything is downloaded here, with the hub's own progress bar, and loaded from its cache like any folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    log.info("looking for %s on the hub", model)
    files = [f"*{suffix}" for suffix in _RELEVANT - {".bin"}]
    try:
        folder = snapshot_download(model, revision=revision, allow_patterns=files, ignore_patterns="*/*")
        if not list(Path(folder).glob("*.safetensors")):
            snapshot_download(model, revision=revision, allow_patterns="*.bin", ignore_patterns="*/*")
    except Exception as error:  # the hub's client raises a dozen unrelated kinds; all mean that there is no model
        raise Mistake(model, f"the hub gave no model ({_first_line(error)})", "check the id, or log in") from error
    commit = Path(folder).name  # the hub's cache is laid out as snapshots/<commit>
    return Weights(folder, (("model", model), ("revision", commit)))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the content of each file in `folder` that a model is loaded from.

    Contents and not dates, so that copied weights keep their identity and retrained ones never do. A file is read
    again only when its size, its times or its inode changed: the time of the last change cannot be set back.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix in _RELEVANT and file.name not in _LEFTOVERS)
    ledger = cache_folder() / "digests" / f"{digest(str(folder))[:24]}.json"
    seen = _read_json(ledger)
    now = {file.name: _stamp(file) for file in files}
    digests = {
        file.name: seen[file.name][1] if seen.get(file.name, [None])[0] == now[file.name] else sha256(file)
        for file in files
    }
    with suppress(OSError):  # a cache folder that cannot be written costs time and nothing else
        _write_json(ledger, {name: [stamp, digests[name]] for name, stamp in now.items()})
    return digests


def _stamp(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):  # no ledger, or a torn one: everything is hashed again
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1), "utf-8")
    part.replace(file)


def _converted(name: str, known: KnownModel) -> Path:
    """The folder of a known model, made on first use; a broken one is made again."""
    models = cache_folder() / "models"
    folder = models / f"{name}-{known.sha256[:12]}"
    if _is_complete(folder, known):
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f"{name}.lock"):  # two processes on a fresh machine: one converts, the other waits
            if not _is_complete(folder, known):
                _build(name, known, folder)
    except OSError as error:
        fix = "make room or set CAI_CACHE to another folder"
        raise Mistake(str(models), f"the model cannot be kept here ({error})", fix) from error
    return folder


def _is_complete(folder: Path, known: KnownModel) -> bool:
    """Whether the marker, which is written last, agrees with every file that lies there."""
    marker = _read_json(folder / _MARKER)
    if marker.get("format") != FORMAT or marker.get("source") != known.sha256:
        return False
    return bool(marker.get("files")) and file_digests(folder) == marker["files"]


def _build(name: str, known: KnownModel, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as temporary:
        gguf = download_model(name, known, Path(temporary))
        log.info("converting %s, once", name)
        made = Path(temporary) / "model"
        _convert(gguf, made)
        _write_json(made / _MARKER, {"format": FORMAT, "source": known.sha256, "files": file_digests(made)})
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF -> safetensors and tokenizer files, so that loading takes one second and not thirty.

    Saved in 32 bits: a 4-bit weight times its scale plus its minimum has more digits than 16 bits hold, and which
    precision to compute in is the loader's choice.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers(), redirect_stderr(io.StringIO()):  # it draws a bar of its own, asked or not
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        # transformers refuses to save or train what is marked as quantised, and these weights no longer are
        del model.config.quantization_config, model.quantization_method
        model.hf_quantizer, model.is_quantized = None, False
        model.config._name_or_path = model.name_or_path = folder.name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def refuse_rewards(folder: Path) -> None:
    """Raises Mistake for a reward model: its head for text would be made up on loading."""
    file = folder / "config.json"
    built = json.loads(file.read_text("utf-8")).get("architectures") if file.is_file() else None
    if any(str(name).endswith("ForSequenceClassification") for name in built or ()):
        raise Mistake(str(folder), "is a reward model, which writes no text", "name a policy")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, warnings or advice from transformers and peft: the terminal belongs to the run."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
