"""The weights that a name means: a folder, the folder of a training, a known model or a hub id."""

from __future__ import annotations

from pathlib import Path

from cai.backends.local.download import sha256
from cai.backends.local.weights import find_weights
from cai.core.errors import Mistake


def model_folder(name: str) -> tuple[Path, dict[str, str]]:
    """Where the weights of `name` are, and what identifies them. Raises Mistake."""
    path = Path(name)
    path = path / "model" if (path / "settings.json").is_file() else path
    if (path / "ensemble.json").is_file():
        raise Mistake(name, "is an ensemble of reward models", "train from a single model")
    if (path / "adapter_config.json").is_file():
        return path.resolve(), {"adapter": sha256(path / "adapter_model.safetensors")}
    if (path.parent / "settings.json").is_file() and not path.exists():
        raise Mistake(name, "its training is not finished: there is no model yet", "run `cai train` again: it goes on")
    found = find_weights(str(path) if path.is_dir() else name)
    return Path(found.folder), dict(found.identity)


def reward_folder(name: str) -> Path:
    """The folder of a reward model or an ensemble that `name` means. Raises Mistake."""
    path = Path(name)
    path = path / "model" if (path / "settings.json").is_file() else path
    if (path / "ensemble.json").is_file() or (path / "adapter_config.json").is_file():
        return path
    return model_folder(name)[0]
