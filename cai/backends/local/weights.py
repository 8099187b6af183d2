"""Finds the weights that a model's name stands for, checks them, and gives them an identity.

A name is one of four things: a model of `models.yaml` (downloaded and converted once into the cache folder), a local
folder, a local GGUF file (converted once likewise), or an id on the Hugging Face hub.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pydantic
from ruamel.yaml import YAML

from cai.backends.local.convert_gguf import known_model_folder, local_gguf_folder
from cai.backends.local.download import KnownModel
from cai.backends.local.model_cache import file_digests, folder_digests
from cai.core.errors import Mistake
from cai.core.plugins import suggest
from cai.core.seeds import digest
from cai.core.types import JsonObject

log = logging.getLogger("cai")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DOWNLOADED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CODE_FILES = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a model's weights are, and what identifies them."""

    folder: str
    identity: tuple[tuple[str, str], ...]
    """The part of the model's identity that names its weights."""


def known_models() -> dict[str, KnownModel]:
    """The table of models that have a short name."""
    table = YAML(typ="safe").load(Path(__file__).with_name("models.yaml"))
    return pydantic.TypeAdapter(dict[str, KnownModel]).validate_python(table)


def find_weights(model: str, revision: str | None = None) -> Weights:
    """The weights that `model` names, downloaded if necessary. Raises Mistake."""
    known, path = known_models(), Path(model)
    if model in known:
        folder = known_model_folder(model, known[model])
        return Weights(str(folder), (("model", model), ("weights", known[model].sha256)))
    if path.is_dir():
        return _local_folder(path.resolve())
    if path.suffix.lower() == ".gguf":
        return _local_gguf(path.resolve())
    if _HUB_ID.fullmatch(model) and not model.startswith("."):
        return _hub(model, revision)
    what = "is neither a known model, nor a folder or GGUF file here, nor an id on the hub"
    raise Mistake(model, what, suggest(model, sorted(known)))


def _local_folder(folder: Path) -> Weights:
    if not (folder / "config.json").is_file():
        if ggufs := sorted(folder.glob("*.gguf")):
            raise Mistake(str(folder), "holds GGUF files", f"name one of them: {ggufs[0]}")
        raise Mistake(str(folder), "holds no model (there is no config.json)", "name a folder made by save_pretrained")
    _require_safetensors(str(folder), folder)
    try:
        contents = digest(folder_digests(folder))
    except OSError as error:
        raise Mistake(str(folder), f"cannot be read: {error}", "check the files and their permissions") from error
    # without the folder's own name and place: a copy of a model is the same model
    return Weights(str(folder), (("model", "folder"), ("weights", contents)))


def _local_gguf(file: Path) -> Weights:
    try:
        sha256 = file_digests(file, [file])[file.name]
    except OSError as error:
        raise Mistake(str(file), f"cannot be read: {error.strerror}", "check the path") from error
    return Weights(str(local_gguf_folder(file, sha256)), (("model", "gguf"), ("weights", sha256)))


def _hub(model: str, revision: str | None) -> Weights:
    """Everything is downloaded here, with the hub's own progress bar, and loaded from its cache like any folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    log.info("looking for %s on the hub", model)
    try:
        folder = snapshot_download(model, revision=revision, allow_patterns=list(_DOWNLOADED), ignore_patterns="*/*")
    except Exception as error:  # the hub's client raises a dozen unrelated classes; all mean that there is no model
        raise Mistake(model, f"the hub gave no model ({_first_line(error)})", "check the id, or log in") from error
    _require_safetensors(model, Path(folder))
    commit = Path(folder).name  # the hub's cache is laid out as snapshots/<commit>
    return Weights(folder, (("model", model), ("revision", commit)))


def _require_safetensors(name: str, folder: Path) -> None:
    """Refuse weights in pickles: loading one can run any code that is in it."""
    if any(folder.glob("*.safetensors")):
        return
    fix = "convert to safetensors: load it where you trust it, and save_pretrained to another folder"
    if pickles := [file.name for kind in _PICKLES for file in folder.glob(kind) if file.name != "training_args.bin"]:
        raise Mistake(name, f"has its weights in a pickle ({pickles[0]}), which can run code when loaded", fix)
    raise Mistake(name, "has no weights in *.safetensors files", fix)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def model_config(folder: Path, name: str = "config.json") -> JsonObject:
    """A JSON file of a model's folder; empty if it is not there. Raises Mistake if it is damaged."""
    file = folder / name
    try:
        content = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise Mistake(str(file), f"cannot be read: {_first_line(error)}", "copy or download the model again") from error
    if not isinstance(content, dict):
        raise Mistake(str(file), "holds no JSON object", "copy or download the model again")
    return content


def refuse_rewards(folder: Path) -> None:
    """Raises Mistake for a reward model: its head for text would be made up on loading."""
    built = model_config(folder).get("architectures")
    if any(str(name).endswith("ForSequenceClassification") for name in built or ()):
        raise Mistake(str(folder), "is a reward model, which writes no text", "name a policy")


def refuse_code(name: str, folder: Path) -> None:
    """Raises Mistake for a model that can only be loaded by running Python code from its own folder."""
    from transformers import CONFIG_MAPPING

    for file in _CODE_FILES:
        config = model_config(folder, file)
        if not config.get("auto_map") or (file == "config.json" and config.get("model_type") in CONFIG_MAPPING):
            continue
        if file != "config.json" and (folder / "tokenizer.json").is_file():
            continue  # which transformers reads without that code
        what = f"needs Python code of its own ({file}: auto_map), which cai does not run"
        fix = "name a model that transformers supports itself, or serve this one and use backend: openai"
        raise Mistake(name, what, fix)


def load_mistake(name: str, error: Exception) -> Mistake:
    """The error for a model `name` that transformers could not load."""
    fix = "name a causal language model, or copy or download this one again"
    return Mistake(name, f"cannot be loaded: {_first_line(error)}", fix)
