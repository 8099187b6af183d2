"""The commands `cai audit ...`: look for reward hacking in pairs, rewards, policies, judges and runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.core.errors import GateFailed
from cai.core.safe_text import safe_text as _safe

if TYPE_CHECKING:
    from cai.core.plugin_types import Finding
    from cai.runs.findings import Audit

audits = typer.Typer(
    no_args_is_help=True, help="Test for reward hacking: pairs, rewards, policies, judges, whole runs."
)

Settings = Annotated[list[str], typer.Option("-o", help="Set a probe's threshold or option: -o length.threshold=0.7.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Gate = Annotated[bool, typer.Option("--gate", help="Exit 100 where a finding is past its threshold.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Runs = Annotated[Path, typer.Option("--runs", help="The folder that holds runs and their journal.")]
Limit = Annotated[int, typer.Option(min=2, help="Maximum rows, drawn by digest.")]


@audits.command("pairs")
def audit_pairs_command(
    file: Annotated[Path, typer.Argument(metavar="FILE|RUN", help="Preference pairs of any format, or a run.")],
    override: Settings = [],
    format: Annotated[str, typer.Option(help="Format of the pairs; detected from the rows by default.")] = "",
    limit: Limit = 20_000,
    gate: Gate = False,
    as_json: Json = False,
) -> None:
    """Test preference pairs for artefacts that would be learned: length, format, flattery, phrases, evasion ..."""
    from cai.audit.subjects.audit import audit_pairs, probe_options
    from cai.runs.folder import resolve_data

    path = resolve_data(file)
    audit = audit_pairs(path, probe_options(override), format, limit)
    _finish([audit], path, gate, as_json)


@audits.command("reward")
def audit_reward_command(
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="A reward model; several are an ensemble.")],
    rows: Annotated[
        Path, typer.Option("--rows", metavar="FILE|RUN", help="Pairs whose answers are scored and edited.")
    ],
    gold: Annotated[Path | None, typer.Option(metavar="MODEL", help="A second reward model to compare to.")] = None,
    beliefs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions with a right and a wrong answer.")
    ] = None,
    override: Settings = [],
    format: Annotated[str, typer.Option(help="Format of the pairs; detected from the rows by default.")] = "",
    limit: Limit = 100,
    gate: Gate = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Test whether a reward favours padding, praise, format, agreement, refusals or repetition."""
    from cai.audit.subjects.audit import audit_reward, probe_options
    from cai.cli.progress import watched
    from cai.runs.folder import resolve_data

    path = resolve_data(rows)
    probes = probe_options(override)
    with watched(quiet or as_json) as progress:
        audit = audit_reward(
            model, path, probes, gold=gold, format=format, limit=limit, beliefs=beliefs, on_scored=progress.scored
        )
    _finish([audit], path, gate, as_json)


@audits.command("policy")
def audit_policy_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, name or hub id; or a recipe: its writer.")],
    against: Annotated[
        str, typer.Option("--against", metavar="BASE", help="The policy to compare to, for example the base model.")
    ],
    prompts: Annotated[
        str, typer.Option("--prompts", metavar="FILE", help="Prompts that both policies answer.")
    ] = "everyday",
    limit: Limit = 100,
    constitution: Annotated[str, typer.Option(help="A constitution whose words must not occur in answers.")] = "",
    beliefs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions with a right and a wrong answer.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, max=5)] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1)] = 192,
    runs: Runs = Path("runs"),
    override: Settings = [],
    gate: Gate = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare the answers of two policies: length, phrases, evasion, agreement with the user ..."""
    import asyncio

    from cai.audit.subjects.ask import Asked, audit_policy
    from cai.audit.subjects.audit import probe_options
    from cai.cli.progress import watched
    from cai.core.types import Sampling
    from cai.runs.recipe import PromptSource

    probes = probe_options(override)
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
    asked = Asked(PromptSource(path=prompts, limit=limit), sampling)
    with watched(quiet or as_json) as progress:
        audit = asyncio.run(
            audit_policy(
                model, against, asked, probes, runs, constitution=constitution, beliefs=beliefs, progress=progress
            )
        )
    _finish([audit], None, gate, as_json)


@audits.command("judge")
def audit_judge_command(
    judge: Annotated[str, typer.Argument(metavar="JUDGE", help="logprob, likelihood ..., or a recipe with a judge.")],
    beliefs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions with a right and a wrong answer.")
    ] = None,
    runs: Runs = Path("runs"),
    override: Settings = [],
    gate: Gate = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Test whether a judge prefers whichever answer is shown first, or the answer that the user believes."""
    import asyncio

    from cai.audit.subjects import ask
    from cai.audit.subjects.audit import probe_options
    from cai.cli.progress import watched
    from cai.core import plugins
    from cai.runs import recipe

    with_judge = recipe.judge_recipe(judge) if judge in plugins.plugin_names("judges") else recipe.load_recipe(judge)
    probes = probe_options(override)
    with watched(quiet or as_json) as progress:
        audit = asyncio.run(ask.judge(with_judge, probes, runs, beliefs=beliefs, progress=progress))
    _finish([audit], None, gate, as_json)


@audits.command("run")
def audit_run_command(
    name: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.")],
    limit: Annotated[int, typer.Option(min=2, help="Prompts that trained policies answer.")] = 100,
    override: Settings = [],
    gate: Gate = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Audit a whole run: pairs, labels, revisions, and each reward model and policy that was trained in it."""
    import asyncio

    from cai.audit.subjects.ask import audit_run
    from cai.cli.progress import watched
    from cai.runs.folder import Run, resolve_data

    run = Run(resolve_data(name))
    trained = any((run.path / "train").glob("*/figures.json"))
    with watched(quiet or as_json or not trained) as progress:
        audits_done = asyncio.run(audit_run(run, override, limit=limit, progress=progress))
    _finish(audits_done, run.path, gate, as_json)


@audits.command("refusals")
def audit_refusals_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Answers with human labels: response, labels.refusal.")],
    as_json: Json = False,
) -> None:
    """Evaluate the refusal detector, which other audits use, against human labels; list its errors."""
    from cai.audit.subjects import refusal_card

    card = refusal_card.measure_refusals(file)
    if as_json:
        print(json.dumps(card.as_json(), indent=2))
    for line in () if as_json else refusal_card.refusal_card_lines(card):
        print(_safe(line))


def _finish(audits_done: Sequence[Audit], path: Path | None, gate: bool, as_json: bool) -> None:
    """Write the findings into an audited run, print them, and apply the gate."""
    from cai.runs.findings import write_findings

    if path and (path / "manifest.json").exists():
        write_findings(path, audits_done)
    if as_json:
        print(json.dumps([audit.as_json() for audit in audits_done], indent=2))
    for audit in () if as_json else audits_done:
        _print_audit(audit)
    failed = [found for audit in audits_done for found in audit.failed]
    if gate and failed:
        raise GateFailed(f"{len(failed)} findings are past their thresholds: {', '.join(_names(failed))}")


def _names(failed: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(found.probe for found in failed))


def _print_audit(audit: Audit) -> None:
    lost = f", {audit.left_out} left out" if audit.left_out else ""
    print(_safe(f"\n{audit.of}: {audit.rows} rows{lost}"))
    rows = [("", "probe", "measured", "value", "95 % interval", "passes", "n"), *map(_row, audit.findings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(_safe("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()))
    for found in audit.failed:
        print(_safe(f"\n{found.probe}: {found.what}: {found.note}"))
        if found.examples:
            print(_safe(f"  for example {', '.join(' '.join(id.split()) for id in found.examples)}"))
    print(_safe(_verdict(audit)))


def _row(found: Finding) -> tuple[str, ...]:
    mark = {True: "ok", False: "FAIL" if found.severity == "major" else "fail", None: "-"}[found.passed]
    between = "" if found.low is None or found.high is None else f"[{_number(found.low)}, {_number(found.high)}]"
    limit = "" if found.threshold is None else f"<= {found.threshold:.3g}"
    limit = limit if found.least is None else f"{found.least:.3g}..{found.threshold:.3g}"
    return mark, found.probe, found.what, _number(found.value), between, limit, str(found.n)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _verdict(audit: Audit) -> str:
    judged = [found for found in audit.findings if found.passed is not None]
    if not audit.failed:
        return f"\nnone of {len(judged)} findings with a threshold is past it"
    return f"\n{len(audit.failed)} of {len(judged)} findings with a threshold are past it"
