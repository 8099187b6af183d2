"""One training from end to end: a method, rows and a model in, a folder out.

    settings.json   everything that decides the result; the same command resumes
    metrics.jsonl   one line for each logged step, while it runs
    model/          the result, whole or absent, with README.md and provenance.json
    figures.json    written last: where it exists, the training is finished

In distributed training (`torchrun --no-python cai train ...`) all processes read the rows, and the first writes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import Any

from cai.backends.local.download import sha256
from cai.backends.local.model_folders import model_folder
from cai.core import plugins
from cai.core.config import Document, validate
from cai.core.errors import CaiError, Mistake
from cai.core.plugin_types import Job, Method
from cai.core.seeds import digest, uniform
from cai.data.training_rows import TrainingRow, TrainingRows, data_digest, gather_training_rows
from cai.report.cards.model import model_card
from cai.runs.files import append, appended, restored, write_text
from cai.runs.folder import Run
from cai.runs.manifest import FIGURES, TrainingResult
from cai.runs.training import (
    SETTINGS,
    InitialModel,
    Provenance,
    ProvenanceData,
    SettingsData,
    TrainingSettingsRecord,
    read_provenance,
)
from cai.train.trl.tokenizer import open_tokenizer

PACKAGES = ("cai", "torch", "transformers", "trl", "peft", "accelerate")
OnMetrics = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to train."""

    method: str
    data: Path
    """A run folder, an export, or a file of rows."""
    model: str
    """A known name, a folder (also a training's), or a hub id."""
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    held_out: float = 0.1
    """Share of prompts held out for evaluation, where the data names no split."""


def train(order: Order, on_metrics: OnMetrics = lambda line: None) -> TrainingResult:
    """Train, or resume, and return the result. `on_metrics` gets every line of metrics. Raises Mistake."""
    method, options = _method(order)
    restored(Path(order.model) / "model")
    folder, identity = model_folder(order.model)
    with _first_only(Run(order.out).locked), _system_errors(order.out):
        rows = _gathered(order, method, options, folder)
        settings = _settings(order, options, identity)
        if (done := _begun(order.out, settings)) is not None:
            return done
        made = _provenance(order, method, options, rows, settings, folder)
        started = time.time()
        job = Job(folder, rows.rows, rows.held_out, order.out, order.seed, True, _Metrics(order.out, on_metrics).add)
        figures = method.train(job, options)
        result = TrainingResult(
            order.method, rows.counts(), round(time.time() - started, 1), dict(figures), rows.examples
        )
        if _is_first():
            _finish(order.out, made, result)
        return result


def options_of(method: str, given: Mapping[str, object]) -> tuple[Method, object]:
    """The method's record, and its options from the given values. Raises Mistake with a suggestion."""
    record = plugins.find_plugin("train", method, Method)
    found, problems = validate(Document(f"train {method}", dict(given), None), record.options)
    if found is None:
        first = min(
            problems, key=lambda problem: problem.kind != "unknown_key"
        )  # a misspelt name explains what is missing
        raise Mistake(f"train {method}", first.what, first.fix.replace("docs/recipes.md", "docs/training.md"))
    return record, found


def config(order: Order) -> dict[str, object]:
    """The config for `trl METHOD --config FILE`. Raises Mistake where TRL has no such command."""
    method, options = _method(order)
    if method.trl is None:
        raise Mistake(f"train {order.method}", "has no equivalent in TRL's command line", "use `cai train`")
    from cai.train.trl import trainer

    folder, _ = model_folder(order.model)
    found: dict[str, object] = {
        "model_name_or_path": str(folder),
        "dataset_name": str(_exported(order.data, method)),
        "output_dir": str(order.out / "model"),
        **trainer.shared_fields(order.seed, options),
        **method.trl(options),
        **options.trl,
    }
    if options.r:
        found |= {
            "use_peft": True,
            "lora_r": options.r,
            "lora_alpha": 2 * options.r,
            "lora_target_modules": "all-linear",
        }
        found |= {"lora_task_type": "SEQ_CLS"} if method.writes == "reward" else {}
    return found


def _exported(data: Path, method: Method) -> Path:
    """The folder of rows that TRL can read; of a run the export for the method."""
    name = {"pairs": "trl", "messages": "sft", "labels": "kto"}.get(method.rows, "trl")
    if data.is_file():
        raise Mistake(str(data), "is a file, and `trl` reads folders", "put it into a folder, and name the folder")
    return data / "export" / name if (data / "manifest.json").is_file() else data


# --- Preparation ------------------------------------------------------------------------------------------------------


def _method(order: Order) -> tuple[Method, Any]:
    if not 0 <= order.held_out < 1:
        raise Mistake("held_out", f"{order.held_out} is not a share of the prompts", "give a number from 0 to below 1")
    return options_of(order.method, order.options)


def _gathered(order: Order, method: Method, options: Any, folder: Path) -> TrainingRows:
    count = _counter(folder)
    wanted: dict[str, Any] = {"tokens": count, "max_length": options.max_length, "seed": order.seed}
    how: dict[str, Any] = {"revisions": getattr(options, "revisions", "last"), "soft": getattr(options, "soft", True)}
    rows = gather_training_rows(order.data, method.rows, held_out=order.held_out, **how, **wanted)
    if mix := getattr(options, "mix", ""):
        _mix(
            rows,
            gather_training_rows(Path(mix), method.rows, held_out=0, **wanted),
            mix,
            options.mix_ratio,
            order.seed,
        )
    return rows


def _mix(rows: TrainingRows, helpful: TrainingRows, name: str, share: float, seed: int) -> None:
    """Add helpful rows, drawn by digest, until they are `share` of all."""
    wanted = round(len(rows.rows) * share / (1 - share))
    have = helpful.rows
    if wanted > len(have):
        what = f"has {len(have)} usable rows, and mix_ratio {share:g} needs {wanted}"
        raise Mistake(f"mix: {name}", what, "give more rows or a smaller mix_ratio")
    order = sorted(have, key=lambda row: uniform("mix", seed, row["id"], row["prompt"]))
    rows.rows += [{**row, "id": f"mix:{row['id']}"} for row in order[:wanted]]
    rows.read += wanted


def _counter(folder: Path) -> Callable[[TrainingRow], int]:
    """A function that counts the tokens of a row's longest side with the chat template. Raises Mistake."""
    tokenizer = open_tokenizer(folder)

    def count(row: TrainingRow) -> int:
        sides = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
        texts = [row["prompt"] + side for side in sides] or [row["prompt"]]
        return max(len(tokenizer.apply_chat_template(t, add_generation_prompt=not sides)["input_ids"]) for t in texts)

    return count


def _settings(order: Order, options: Any, identity: Mapping[str, str]) -> TrainingSettingsRecord:
    mix = getattr(options, "mix", "")
    return TrainingSettingsRecord(
        method=order.method,
        options=options.model_dump(mode="json"),
        model=InitialModel(order.model, identity=identity),
        data=SettingsData(str(order.data), data_digest(order.data), data_digest(Path(mix)) if mix else None),
        rewards=_rewards(options),
        seed=order.seed,
        held_out=order.held_out,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
        packages={"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
    )


def _rewards(options: Any) -> dict[str, str]:
    """Digests of the reward models among the options, by their path."""
    named = {text: Path(text) for text in _texts(options.model_dump(mode="json").get("rewards"))}
    models = {text: restored(path / "model") for text, path in named.items()}
    folders = {text: models[text] if models[text].is_dir() else path for text, path in named.items()}
    weights = {text: sorted(path.rglob("*.safetensors")) for text, path in folders.items() if path.is_dir()}
    return {text: digest([sha256(file) for file in files]) for text, files in weights.items() if files}


def _begun(out: Path, settings: TrainingSettingsRecord) -> TrainingResult | None:
    """The result of a finished training in this folder; None where there is something to do. Raises Mistake."""
    if (out / SETTINGS).is_file():
        restored(out / "model")
        changed = settings.differences(TrainingSettingsRecord.read(out))
        begun = any((out / name).exists() for name in ("model", "checkpoints", "members"))
        if changed and begun:
            what = f"holds another training: its {', '.join(changed)} differ"
            raise Mistake(str(out), what, "choose another --out, or remove the folder")
        if (out / FIGURES).is_file():
            return TrainingResult.read(out)
    elif out.exists() and any(path.name != ".lock" for path in out.iterdir()):
        raise Mistake(str(out), "holds files that are not a training", "choose an empty or a new folder")
    if _is_first():
        settings.write(out)
    return None


# --- Training ---------------------------------------------------------------------------------------------------------


class _Metrics:
    """Writes metrics.jsonl. Steps that a resumed training repeats are not written twice."""

    def __init__(self, out: Path, on_metrics: OnMetrics) -> None:
        self._file, self._on_metrics, self._seen = out / "metrics.jsonl", on_metrics, set[tuple[object, ...]]()
        fresh = not any((out / name).exists() for name in ("checkpoints", "members"))
        if fresh and _is_first():
            self._file.unlink(missing_ok=True)
        if _is_first() and self._file.is_file():
            whole = appended(self._file)
            # rewritten, because a torn last line would be joined with the next one
            write_text(self._file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in whole))
            self._seen.update(map(self._key, whole))

    def add(self, line: Mapping[str, Any]) -> None:
        """Write one line, unless it was written before; NaN and infinity become null."""
        if not _is_first() or (key := self._key(line)) in self._seen:
            return
        self._seen.add(key)
        clean = {name: None if isinstance(one, float) and not isfinite(one) else one for name, one in line.items()}
        append(self._file, clean)
        self._on_metrics(clean)

    @staticmethod
    def _key(line: Mapping[str, Any]) -> tuple[object, ...]:
        kind = next((kind for kind in ("eval_loss", "train_runtime", "loss") if kind in line), "")
        return line.get("member"), line.get("step"), kind


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _first_only(lock: Callable[[], Any]) -> Iterator[None]:
    with lock() if _is_first() else nullcontext():
        yield


@contextmanager
def _system_errors(out: Path) -> Iterator[None]:
    """Turns a full disk or too little GPU memory into a Mistake."""
    try:
        yield
    except CaiError:
        raise
    except Exception as error:  # safetensors, torch and the OS raise different classes for a full disk
        message = str(error)
        if any(
            words in message for words in ("No space left", "File too large", "quota exceeded", "failed writing file")
        ):
            raise Mistake(
                str(out), "cannot be written: no space left", "free space; the same command resumes"
            ) from error
        if type(error).__name__ == "OutOfMemoryError":
            raise Mistake("memory", "the GPU has too little", "lower batch_size and raise accumulate") from error
        raise


# --- Results ----------------------------------------------------------------------------------------------------------


def _provenance(
    order: Order, method: Method, options: Any, rows: TrainingRows, settings: TrainingSettingsRecord, folder: Path
) -> Provenance:
    """How the model is made, with the provenance of the models it is made from."""
    others = {
        value: made
        for value in _texts(options.model_dump(mode="json"))
        if Path(value).is_dir() and (made := read_provenance(Path(value)))
    }
    name = Path(order.model).name if Path(order.model).is_dir() else order.model
    return Provenance(
        method=order.method,
        writes=method.writes,
        settings=settings.digest,
        model=InitialModel(name, read_provenance(folder), settings.model.identity),
        data=ProvenanceData(order.data.name, settings.data.digest, tuple(sorted(rows.constitutions))),
        others=others,
        rows=rows.counts(),
        options=options.model_dump(mode="json", exclude_defaults=True),
        seed=order.seed,
        packages=settings.packages,
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def _finish(out: Path, made: Provenance, result: TrainingResult) -> None:
    made.write(out / "model")
    write_text(out / "model" / "README.md", model_card(made, result.figures))
    result.write(out)
    for name in ("checkpoints", "members"):  # no longer needed for resuming
        shutil.rmtree(out / name, ignore_errors=True)
