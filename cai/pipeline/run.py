"""A recipe from its first prompt to a policy: the run, its trainings in order, and what the last of them changed.

    train/<name>/   one training each, as `cai train` leaves it
    policy.json     the model that was trained and what became of it, on prompts that no training saw

Prompts kept out are those that the exports call `test` too, so that no training has seen them.

Left out on purpose: choosing among trainings. All are kept, and the last policy is the one that is compared.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cai.audit import repetition
from cai.audit.subjects import ask as asking
from cai.audit.subjects import audit as auditing
from cai.audit.subjects.audit import Audit
from cai.backends.local.model_folders import model_folder, reward_folder
from cai.core import config as outside
from cai.core import plugins
from cai.core.errors import Mistake
from cai.core.phrases import words
from cai.core.plugin_types import Backend, Case, Exhibit, Method
from cai.core.stats import change, interval
from cai.core.types import Prompt, Sampling
from cai.data import prompts as sources
from cai.data.splits import make_split
from cai.data.training_rows import HELD_OUT
from cai.pipeline import generate as pipeline
from cai.runs.budget import Budget
from cai.runs.files import write_json
from cai.runs.folder import Manifest, Run
from cai.runs.journal import Journal
from cai.runs.models import open_all
from cai.runs.progress import Progress
from cai.runs.recipe import Recipe, Training
from cai.train.run import train as training
from cai.train.run.train import Order

POLICY = "policy.json"
REPEATING = 0.2
"""Share of word 4-grams said before, from which an answer counts as repeating."""
Say = Callable[[str, Mapping[str, Any]], None]
"""Told of every line of a training's metrics: the training's name, and the line."""


async def run(
    chosen: Recipe, where: Run, progress: Progress | None = None, budget: Budget | None = None,
    say: Say = lambda name, line: None,
) -> Manifest:  # fmt: skip
    """Do the recipe whole; the manifest, with what the trainings came to. Raises Mistake before anything is paid."""
    progress = progress or Progress()
    check(chosen)
    started = time.time()
    said = await pipeline.run(chosen, where, progress, budget)
    if not chosen.train:
        return said
    said["train"] = _taught(chosen, where, progress, say)
    write_json(where.path / "manifest.json", said)
    if policies := [step for step in chosen.train if _method(step).writes == "policy"]:
        said["policy"] = await _compared(chosen, where, policies[-1], progress)
    said["seconds"] = round(time.time() - started, 2)
    write_json(where.path / "manifest.json", said)
    pipeline.report(where, progress)
    return said


def check(chosen: Recipe) -> None:
    """Everything about the trainings that can be known before the first of them. Raises Mistake."""
    known: dict[str, Method] = {}
    for step in chosen.train:
        if step.folder in known:
            raise Mistake(f"train: {step.folder}", "is the name of two trainings", "give one of them a `name`")
        known[step.folder] = _method(step)
        training.options_of(step.method, _options(step, Path("train"), known))
        start = _start(chosen, step, Path("train"), known)
        if step.start not in known:
            model_folder(start)
        for name in _named(step.options.get("rewards")):
            if name not in known:
                reward_folder(name)


def _taught(chosen: Recipe, where: Run, progress: Progress, say: Say) -> list[dict[str, Any]]:
    done, known = list[dict[str, Any]](), dict[str, Method]()
    for step in chosen.train:
        known[step.folder] = _method(step)
        progress.begin(f"train {step.folder}")
        into = where.path / "train"
        _unchanged(where, step)
        model, options = _start(chosen, step, into, known), _options(step, into, known)
        order = Order(step.method, where.path, model, into / step.folder, options, chosen.seed)
        told = training.train(order, lambda line, name=step.folder: say(name, line))  # type: ignore[misc]  # mypy and defaults
        done.append({"name": step.folder, "from": step.start, **told})
    return done


def _named(value: Any) -> list[str]:
    """The models among a step's rewards; `package.module:function` and the judge are none."""
    if isinstance(value, dict):
        return _named(value.get("model"))
    if isinstance(value, list | tuple):
        return [name for inner in value for name in _named(inner)]
    return [value] if isinstance(value, str) and ":" not in value else []


def _unchanged(where: Run, step: Training) -> None:
    """Raises Mistake where a step was begun on other rows than the run has now."""
    file = where.path / "train" / step.folder / "settings.json"
    if file.is_file() and json.loads(file.read_text("utf-8"))["data"]["digest"] != where.digest:
        what = "learned from other rows than the run has now"
        raise Mistake(str(file.parent), what, "run with another --name, or remove the folder")


def _method(step: Training) -> Method:
    return plugins.find("train", step.method, Method)


def _start(chosen: Recipe, step: Training, into: Path, known: Mapping[str, Method]) -> str:
    """The model that a step starts from. Raises Mistake."""
    if step.start in known:
        if known[step.start].writes != "policy" or step.start == step.folder:
            raise Mistake(f"train: {step.folder}", f"cannot start from {step.start!r}", "start from a policy before it")
        return str(into / step.start)
    if step.start != "writer":
        return step.start
    if chosen.writer.backend != "transformers":
        what = f"starts from the writer, which {chosen.writer.backend} keeps to itself"
        raise Mistake(f"train: {step.folder}", what, "add `from:` and a folder, a known model or a hub id")
    backend: Any = plugins.find("backends", "transformers", Backend)
    options = outside.noun(outside.Document("recipe: writer", chosen.writer.options, None), backend.options)
    return str(options.model)


def _options(step: Training, into: Path, known: Mapping[str, Method]) -> dict[str, Any]:
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


async def _compared(chosen: Recipe, where: Run, last: Training, progress: Progress) -> dict[str, Any]:
    """The writer and the trained policy on the prompts kept out; findings of the probes join the run's."""
    split = make_split(chosen.export.test_share, chosen.seed)
    read = (prompt for prompt in sources.read(chosen.prompts) if isinstance(prompt, Prompt))
    prompts = [prompt for prompt in read if split(prompt) in HELD_OUT]
    if not prompts:
        return {"policy": last.folder, "n": 0, "why": "no prompt is kept out of training: raise export.test_share"}
    sampling = Sampling(0.0, 1.0, chosen.draft.max_tokens)
    before = _start(chosen, chosen.train[0], where.path / "train", {})
    names = {"before": before, "after": str(where.path / "train" / last.folder)}
    said, lost = dict[str, Mapping[str, str]](), Counter[str]()
    with Journal(where.path.parent / "journal.sqlite") as journal:
        for side, name in names.items():
            model = open_all({side: asking.policy(name)}, journal, progress, None)[side]
            progress.begin(f"policy {side}", len(prompts))
            try:
                said[side] = await asking.answers(model, prompts, sampling, chosen.seed, progress, lost)
            finally:
                await model.close()
    both = [prompt for prompt in prompts if all(prompt.id in side for side in said.values())]
    pairs = [(said["before"][prompt.id], said["after"][prompt.id]) for prompt in both]
    rows = [
        {"id": prompt.id, "prompt": prompt.messages[-1].content, "before": old, "after": new}
        for prompt, (old, new) in zip(both, pairs, strict=True)
    ]
    facts = {"policy": last.folder, "models": names, "n": len(both), "lost": dict(lost)} | moved(pairs, chosen.seed)
    write_json(where.path / POLICY, facts | {"rows": rows})
    cases = tuple(Case(p.id, p.messages, new, old) for p, (old, new) in zip(both, pairs, strict=True))
    of = f"policy {last.folder} against the writer"
    exhibit = Exhibit(cases, texts=tuple(auditing.spoken(where)))
    found = tuple(auditing.look("policy", exhibit, auditing.options(asked=chosen.audit), of))
    auditing.write(where, [Audit(of, len(cases), found, lost.total())])
    return facts


def moved(pairs: list[tuple[str, str]], seed: int) -> dict[str, Any]:
    """What changed from the first to the second answer of each pair: words, and whether it still is an answer.

    `kept` is the share of the new answer's words that the old one has; `kept_of_another` the same with the old answer
    to another prompt, which is what chance gives.
    """
    strangers = [(old, new) for (old, _), (_, new) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    old, new = ([len(side.split()) for side in sides] for sides in (zip(*pairs, strict=True) if pairs else ((), ())))
    return {
        "words": asdict(change(old, new, seed=seed)),
        "median_before": interval(old, "median", seed=seed).value,
        "median_after": interval(new, "median", seed=seed).value,
        "shorter": sum(b < a for a, b in zip(old, new, strict=True)),
        "longer": sum(b > a for a, b in zip(old, new, strict=True)),
        "empty": [sum(not side.strip() for side in sides) for sides in zip(*pairs, strict=True)],
        "repetitive": [
            sum(repetition.repeated(side) >= REPEATING for side in sides) for sides in zip(*pairs, strict=True)
        ],
        "kept": asdict(interval([kept(a, b) for a, b in pairs], seed=seed)),
        "kept_of_another": asdict(interval([kept(a, b) for a, b in strangers], seed=seed)),
    }


def kept(old: str, new: str) -> float:
    """Share of the new answer's longer words that the old answer has too; 0 for an answer without any."""
    before, after = ({word for word in words(side) if len(word) > 3} for side in (old, new))
    return len(before & after) / len(after) if after else 0.0
