"""The whole recipe, from its first prompt to a policy: the rows, the trainings in order, what the last one changed.

    train/<name>/   one training each, as `cai train` leaves it
    policy.json     the model that was trained and what became of it, on prompts that no training saw

Prompts kept out are those that the exports call `test` too, so that no training has seen them.

All trainings are kept, and the last policy is the one that is compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cai.backends.local.model_folders import model_folder, reward_folder
from cai.core import plugins
from cai.core.config import Document, parse_options
from cai.core.errors import Mistake
from cai.core.plugin_types import Backend, Method
from cai.core.plugins import NotLoaded
from cai.core.types import JsonObject
from cai.pipeline.generate import generate, write_report
from cai.pipeline.policy_change import compare_policies
from cai.runs.budget import Budget
from cai.runs.folder import Run
from cai.runs.manifest import Manifest, TrainingResult, seconds_of
from cai.runs.progress import Progress
from cai.runs.recipe import Recipe, TrainingSettings
from cai.train.run.train import Order, options_of, train

OnMetrics = Callable[[str, Mapping[str, Any]], None]
"""Takes every line of a training's metrics: the training's name, and the line."""


async def run(
    recipe: Recipe, run: Run, progress: Progress | None = None, budget: Budget | None = None,
    on_metrics: OnMetrics = lambda name, line: None,
) -> Manifest:  # fmt: skip
    """Do the recipe whole; the manifest, with what the trainings came to. Raises Mistake before anything is paid.

    The run's lock is held until the last training and the comparison are done.
    """
    progress = progress or Progress()
    check_trainings(recipe)
    with run.locked():
        manifest = await generate(recipe, run, progress, budget)
        if not recipe.train:
            return manifest
        began = time.time()
        manifest = replace(manifest, train=tuple(_train_all(recipe, run, progress, on_metrics)))
        manifest.write(run.path)
        if policies := [step for step in recipe.train if _method(step).writes == "policy"]:
            before = _start(recipe, recipe.train[0], run.path / "train", {})
            changed = await compare_policies(recipe, run, before, policies[-1].folder, progress)
            manifest = replace(manifest, policy=changed)
        manifest = _longer(manifest, time.time() - began)
        manifest.write(run.path)
        write_report(run, progress)
    return manifest


def _longer(manifest: Manifest, seconds: float) -> Manifest:
    """The manifest with the time of the trainings added to its last start."""
    *before, last = manifest.starts
    starts = (*before, replace(last, seconds=round(last.seconds + seconds, 2)))
    return replace(manifest, starts=starts, seconds=seconds_of(starts))


def check_trainings(recipe: Recipe) -> None:
    """Everything about the trainings that can be known before the first of them. Raises Mistake."""
    known: dict[str, Method] = {}
    for step in recipe.train:
        if step.folder in known:
            raise Mistake(f"train: {step.folder}", "is the name of two trainings", "give one of them a `name`")
        try:
            known[step.folder] = _method(step)
        except NotLoaded:
            continue
        options_of(step.method, _options(step, Path("train"), known))
        start = _start(recipe, step, Path("train"), known)
        if step.start not in known:
            model_folder(start)
        for name in _named(step.options.get("rewards")):
            if name not in known:
                reward_folder(name)


def _train_all(recipe: Recipe, run: Run, progress: Progress, on_metrics: OnMetrics) -> list[TrainingResult]:
    done, known = list[TrainingResult](), dict[str, Method]()
    for step in recipe.train:
        known[step.folder] = _method(step)
        progress.begin(f"train {step.folder}")
        into = run.path / "train"
        _unchanged(run, step)
        model, options = _start(recipe, step, into, known), _options(step, into, known)
        order = Order(step.method, run.path, model, into / step.folder, options, recipe.seed)
        result = train(order, partial(on_metrics, step.folder))
        done.append(replace(result, name=step.folder, start=step.start))
    return done


def _named(value: Any) -> list[str]:
    """The models among a step's rewards; `package.module:function` and the judge are none."""
    if isinstance(value, dict):
        return _named(value.get("model"))
    if isinstance(value, list | tuple):
        return [name for inner in value for name in _named(inner)]
    return [value] if isinstance(value, str) and ":" not in value else []


def _unchanged(run: Run, step: TrainingSettings) -> None:
    """Raises Mistake where a step was begun on other rows than the run has now."""
    file = run.path / "train" / step.folder / "settings.json"
    if file.is_file() and json.loads(file.read_text("utf-8"))["data"]["digest"] != run.digest:
        what = "learned from other rows than the run has now"
        raise Mistake(str(file.parent), what, "run with another --name, or remove the folder")


def _method(step: TrainingSettings) -> Method:
    return plugins.find_plugin("train", step.method, Method)


def _start(recipe: Recipe, step: TrainingSettings, into: Path, known: Mapping[str, Method]) -> str:
    """The model that a step starts from. Raises Mistake."""
    if step.start in known:
        if known[step.start].writes != "policy" or step.start == step.folder:
            raise Mistake(f"train: {step.folder}", f"cannot start from {step.start!r}", "start from a policy before it")
        return str(into / step.start)
    if step.start != "writer":
        return step.start
    if recipe.writer.backend != "transformers":
        what = f"starts from the writer, which {recipe.writer.backend} keeps to itself"
        raise Mistake(f"train: {step.folder}", what, "add `from:` and a folder, a known model or a hub id")
    backend: Any = plugins.find_plugin("backends", "transformers", Backend)
    options = parse_options(Document("recipe: writer", recipe.writer.options, None), backend.options)
    return str(options.model)


def _options(step: TrainingSettings, into: Path, known: Mapping[str, Method]) -> JsonObject:
    """A step's own options; where they name an earlier training as a reward, its folder stands for it."""

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [placed(inner) for inner in value]
        earlier = isinstance(value, str) and value in known and known[value].writes == "reward"
        return str(into / value) if earlier else value

    given = step.options
    return {**given, "rewards": placed(given["rewards"])} if "rewards" in given else given
