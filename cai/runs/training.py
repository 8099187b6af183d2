"""The settings and the provenance of a training, as settings.json and provenance.json hold them.

This module defines the records, and reads and writes both files. Files of earlier versions are read too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WrapSerializer

from cai.core.errors import Mistake
from cai.core.seeds import digest
from cai.runs.files import read_record, record_as_json, write_json
from cai.runs.manifest import RowCounts

SETTINGS = "settings.json"
PROVENANCE = "provenance.json"


@dataclass(frozen=True, slots=True)
class InitialModel:
    """The model that a training started from."""

    name: str = ""
    made: Provenance | None = None
    """How that model was trained, where its folder says so."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """What identifies its weights. In the files these keys stand beside `name`."""


def _gather_identity(value: object) -> object:
    if not isinstance(value, dict) or "identity" in value:
        return value
    return {
        "name": value.get("name", ""),
        "made": value.get("made"),
        "identity": {key: one for key, one in value.items() if key not in ("name", "made")},
    }


def _spread_identity(value: InitialModel, serialise: Callable[[InitialModel], dict[str, Any]]) -> dict[str, Any]:
    found = serialise(value)
    identity: dict[str, Any] = found.pop("identity")
    return identity | {key: one for key, one in found.items() if one is not None}


_Model = Annotated[InitialModel, BeforeValidator(_gather_identity), WrapSerializer(_spread_identity)]


@dataclass(frozen=True, slots=True)
class SettingsData:
    """The rows of a training."""

    path: str = ""
    digest: str = ""
    mix: str | None = None
    """Digest of the rows that are mixed in."""


@dataclass(frozen=True, slots=True)
class TrainingSettingsRecord:
    """Everything that decides the result of a training."""

    method: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    model: _Model = field(default_factory=InitialModel)
    data: SettingsData = field(default_factory=SettingsData)
    rewards: Mapping[str, str] = field(default_factory=dict)
    """Digests of the reward models among the options, by their path."""
    seed: int = 0
    held_out: float = 0.0
    processes: int = 1
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Identifies the settings."""
        return digest(self.as_json())

    def as_json(self) -> dict[str, object]:
        """As settings.json holds it."""
        found = record_as_json(self)
        data = record_as_json(self.data)
        found["data"] = {key: value for key, value in data.items() if value is not None}
        return found if self.rewards else {key: value for key, value in found.items() if key != "rewards"}

    def differences(self, other: TrainingSettingsRecord) -> list[str]:
        """Names of the fields in which two settings differ."""
        one, two = record_as_json(self), record_as_json(other)
        return [each.name for each in fields(self) if one[each.name] != two[each.name]]

    def write(self, folder: Path) -> None:
        """Write settings.json, whole or not at all. Raises Mistake."""
        write_json(folder / SETTINGS, self.as_json())

    @staticmethod
    def read(folder: Path) -> TrainingSettingsRecord:
        """The settings of the training in `folder`. Raises Mistake."""
        return read_record(folder / SETTINGS, TrainingSettingsRecord, "train again into another folder")


@dataclass(frozen=True, slots=True)
class ProvenanceData:
    """The rows of a training: name, digest, and the digests of the constitutions that they were made by."""

    name: str
    digest: str
    constitutions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a model was trained, and how the models it was trained from were."""

    method: str
    settings: str
    """Digest of settings.json."""
    model: _Model
    data: ProvenanceData
    rows: RowCounts
    writes: Literal["policy", "reward"] = "policy"
    others: Mapping[str, Provenance] = field(default_factory=dict)
    """Other models among the options, such as reward models, by their path."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Those that differ from the defaults."""
    seed: int = 0
    packages: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """As provenance.json holds it."""
        return record_as_json(self)

    def write(self, model: Path) -> None:
        """Write provenance.json into a model folder, whole or not at all. Raises Mistake."""
        write_json(model / PROVENANCE, self.as_json())


def read_provenance(folder: Path) -> Provenance | None:
    """The provenance of a model folder, or of the model of a training folder.

    None where there is none, or where the file is not in this format, as in a model from another source.
    """
    for place in (folder, folder / "model"):
        try:
            return read_record(place / PROVENANCE, Provenance, "")
        except Mistake:
            continue
    return None
