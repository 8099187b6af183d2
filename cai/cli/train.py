"""The commands `cai train`, `cai iterate` and `cai score`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cai.core.safe_text import safe_text as _safe

if TYPE_CHECKING:
    from cai.pipeline.iterate import IterationRound
    from cai.runs.manifest import TrainingResult

Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Device.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
SHOWN = ("scored", "loss", "reward", "kl", "rewards/accuracies", "rewards/margins", "accuracy", "margin", "eval_loss")


def train_command(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="sft, reward, dpo, kto, orpo, ppo, rloo, grpo.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A run, an export, or a file of rows.")],
    model: Annotated[
        str, typer.Option("--model", help="A known name, a folder, or a hub id.")
    ] = "smollm2-135m-instruct",
    override: Annotated[list[str], typer.Option("-o", help="Set an option: -o learning_rate=1e-5.")] = [],
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder; for a run DATA/train/METHOD by default.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name under runs/, instead of --out.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed.")] = 0,
    held_out: Annotated[float, typer.Option("--held-out", help="Share of prompts held out for evaluation.")] = 0.1,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the config for TRL's own command.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on rows. The same command resumes an interrupted training."""
    from cai.core import config
    from cai.runs.folder import resolve_data
    from cai.train.run import train as training
    from cai.train.run.train import Order

    data = resolve_data(data)
    out_folder = _out(method, data, out, name)
    order = Order(method, data, model, out_folder, config.overridden({}, override), seed, held_out)
    if print_config:
        return _print_config(training.config(order), as_json)
    try:
        result = training.train(order, _ignore if quiet or as_json else _progress)
    except KeyboardInterrupt:
        print(f"cai: interrupted: the same command resumes in {out_folder}", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(result.as_json()))
    else:
        _print_result(result, out_folder)


def iterate_command(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file with `sample` and `judge`.")],
    override: Annotated[
        list[str], typer.Option("-o", help="Set an option of the loop: -o rounds=3, -o policy.max_steps=100.")
    ] = [],
    name: Annotated[str | None, typer.Option("--name", help="Name under runs/; the recipe's name by default.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Repeat: sample, label, train reward and policy, audit. The same command resumes an interrupted loop."""
    from cai.core import config
    from cai.pipeline import iterate as iterating
    from cai.runs import recipe as recipes
    from cai.runs.folder import run_folder

    loaded = recipes.load_recipe(recipe)
    out_folder = run_folder(Path("runs"), name or f"{Path(recipe).stem}-iterated")
    how = iterating.loop(config.overridden({}, override))
    try:
        rounds = iterating.run_iterations(
            loaded, how, out_folder, on_metrics=_ignore_round if quiet or as_json else _print_round
        )
    except KeyboardInterrupt:
        print(f"cai: interrupted: the same command resumes in {out_folder}", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([one.result.as_json() for one in rounds]))
    for one in () if as_json else rounds:
        _print_result_of_round(one)


def _print_result_of_round(done: IterationRound) -> None:
    result = done.result
    policy = ", ".join(f"{key} {result.policy[key]:.3g}" for key in ("reward", "kl") if key in result.policy)
    print(_safe(f"{done.folder}: {result.old_pairs} old and {result.new_pairs} new pairs, {policy}"))
    if result.redteam:
        print(_safe(f"  red team: {result.redteam.rows} edited answers get a higher reward"))
    if done.stopped:
        print(_safe(f"  stopped: {done.stopped}"))


def _ignore_round(name: str, line: Mapping[str, Any]) -> None: ...


def _print_round(name: str, line: Mapping[str, Any]) -> None:
    if not line:
        print(f"{name} ...", file=sys.stderr)
    _progress({**line, "member": " ".join(filter(None, (name, str(line.get("member") or ""))))})


def score_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL... FILE", help="Reward models, then a file of rows.")],
    combine: Annotated[
        Literal["mean", "min", "mean_std"], typer.Option(help="How several scores are combined.")
    ] = "mean",
    k: Annotated[float, typer.Option(help="mean_std: mean minus k standard deviations.")] = 1.0,
    device: Device = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary on stderr.")] = False,
    as_json: Json = False,
) -> None:
    """Score the answers of a file with one or more reward models: JSON lines on stdout, a summary on stderr."""
    from cai.backends.local.model_folders import reward_folder
    from cai.core.errors import Mistake
    from cai.runs.files import restored
    from cai.runs.folder import resolve_data
    from cai.train.run import score as scoring

    if len(models) < 2:
        raise Mistake("score", "needs at least one reward model and a file", "cai score MODEL... FILE")
    for name in models[:-1]:
        restored(Path(name) / "model")
    folders = [reward_folder(name) for name in models[:-1]]
    rows, summary = scoring.score_file(folders, resolve_data(Path(models[-1])), combine=combine, k=k, device=device)
    if as_json:
        print(json.dumps({"rows": rows, "summary": summary}))
        return
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))
    for line in [] if quiet else _lines(summary):
        print(line, file=sys.stderr)


def _out(method: str, data: Path, out: Path | None, name: str | None) -> Path:
    from cai.runs.folder import run_folder

    if out is not None:
        return out
    if name is not None:
        return run_folder(Path("runs"), name)
    if (data / "manifest.json").is_file():
        return data / "train" / method.replace(":", ".")
    return run_folder(Path("runs"), f"{method}-{data.name.split('.')[0]}".replace(":", "."))


def _print_config(config: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(config))
        return
    for key, value in config.items():
        if value is not None:
            print(f"{key}: {json.dumps(value)}")  # JSON is YAML


def _ignore(line: Mapping[str, Any]) -> None: ...


def _progress(line: Mapping[str, Any]) -> None:
    shown = [f"{key} {line[key]:.4g}" for key in SHOWN if isinstance(line.get(key), int | float)]
    if shown:
        who = [str(line["member"])] if "member" in line else []
        step = [f"step {line['step']}"] if "step" in line else []
        print(" ".join([*who, *step]) + "  " + "  ".join(shown), file=sys.stderr)


def _print_result(result: TrainingResult, out_folder: Path) -> None:
    rows = result.rows
    print(f"{rows.read} rows: {rows.used} used for training, {rows.held_out} held out")
    for reason, count in rows.left_out.items():
        print(f"  {count} left out, {reason}: {_safe(result.why_left_out.get(reason, ''))}")
    for line in _lines(result.figures):
        print(f"  {line}")
    print(out_folder / "model")


def _lines(figures: Mapping[str, Any], name: str = "") -> list[str]:
    """One line for each figure; a mapping with an interval is one figure."""
    lines: list[str] = []
    for key, value in figures.items():
        label = f"{name} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping) and "low" in value:
            between = "" if value["low"] is None else f" [{value['low']:.4g}, {value['high']:.4g}], n = {value['n']}"
            lines.append(f"{label}: {'-' if value['value'] is None else format(value['value'], '.4g')}{between}")
        elif isinstance(value, Mapping):
            lines += _lines(value, label)
        elif isinstance(value, int | float):
            lines.append(f"{label}: {value:.6g}")
        elif isinstance(value, str):
            lines.append(f"{label}: {_safe(value)}")
    return lines
