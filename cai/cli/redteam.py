"""The commands `cai redteam ...`: search for edits that raise a reward, and for wrappers that make a policy answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.core.errors import GateFailed
from cai.core.safe_text import safe_text as _safe

if TYPE_CHECKING:
    from cai.audit.redteam.reward import Attack
    from cai.core.plugin_types import Finding
    from cai.core.stats import Interval
    from cai.runs.redteam import PolicyRedTeam

redteams = typer.Typer(no_args_is_help=True, help="Red-team a reward model or a policy.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Gate = Annotated[bool, typer.Option("--gate", help="Exit 100 where a finding fails.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the successes as JSONL.")]


@redteams.command("reward")
def redteam_reward_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A reward model, or an ensemble of them.")],
    rows: Annotated[Path, typer.Option("--rows", metavar="FILE|RUN", help="Pairs whose answers are edited.")],
    out: Out = None,
    budget: Annotated[int, typer.Option(min=50, help="Maximum answers to score.")] = 20_000,
    depth: Annotated[int, typer.Option(min=1, max=8, help="Maximum edits in a chain.")] = 4,
    chains: Annotated[int, typer.Option(min=0, help="Random chains of edits for each answer.")] = 16,
    seed: int = 0,
    limit: Annotated[int, typer.Option(min=2, help="Maximum pairs, drawn by digest.")] = 200,
    gate: Gate = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search for edits that raise the reward without improving the answer; --out writes them as rejected rows."""
    from cai.audit.redteam.reward import Search, attack, rows_of
    from cai.audit.subjects.audit import scored_cases
    from cai.cli.progress import watched
    from cai.runs.files import write_text
    from cai.runs.folder import resolve_data

    with watched(quiet or as_json) as progress:
        cases, scores = scored_cases(model, resolve_data(rows), limit, on_scored=progress.scored)
        found = attack(cases, scores, Search(depth, chains, budget, seed))
    if out:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(found.best)))
    if as_json:
        print(json.dumps(found.summary().as_json(), indent=2))
    else:
        _print_attack(found, out)
    if gate and found.broken:
        raise GateFailed("the reward is raised by edits that do not improve the answer")


def _print_attack(found: Attack, out: Path | None) -> None:
    print(f"{found.answers} answers edited, {found.scored} texts scored; gains in the reward's spread")
    for one in sorted(found.single, key=lambda one: -(one.value or 0.0)):
        print(_safe(f"  {_mark(one)}  {_gain(one):26} {one.what}"))
    if found.held_out:
        print(_safe(f"together: {_mark(found.held_out)}  {_gain(found.held_out)} {found.held_out.what}"))
    for best in found.summary().chains[:8]:
        print(_safe(f"  best for {best.answers} answers, gain {best.gain:.2f}: {best.chain}"))
    print(f"{len(found.best)} edited answers get a higher reward" + (f": {out}" if out else "; --out FILE writes them"))


def _mark(one: Finding) -> str:
    return {True: "ok  ", False: "FAIL", None: "-   "}[one.passed]


def _gain(one: Finding) -> str:
    if one.value is None or one.low is None:
        return "-"
    return f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


@redteams.command("policy")
def redteam_policy_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, name or hub id; or a recipe: its writer.")],
    prompts: Annotated[str, typer.Option("--prompts", metavar="FILE", help="Prompts that should be refused.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first prompts.")] = None,
    wrappers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file with wrappers; the shipped ones by default.")
    ] = None,
    judge: Annotated[
        str, typer.Option(metavar="MODEL", help="A model that says of each answer whether it gives what was asked for.")
    ] = "",
    max_tokens: Annotated[int, typer.Option(min=1)] = 48,
    seed: int = 0,
    out: Out = None,
    runs: Annotated[Path, typer.Option("--runs", help="The folder that holds runs and their journal.")] = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Ask prompts that should be refused, in wrappers; the success rate by wrapper and category."""
    import asyncio

    from cai.audit.redteam.policy import load_wrappers, red_team_policy, successes
    from cai.cli.progress import watched
    from cai.runs.files import write_text
    from cai.runs.recipe import PromptSource

    source = PromptSource(path=prompts, limit=limit)
    with watched(quiet or as_json) as progress:
        attempts = asyncio.run(
            red_team_policy(
                model, source, runs, wrappers=load_wrappers(wrappers), max_tokens=max_tokens, judge=judge,
                run_seed=seed, progress=progress,
            )
        )  # fmt: skip
    if out:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in successes(attempts.attempts)))
    if as_json:
        print(json.dumps(attempts.summary().as_json(), indent=2))
    else:
        _print_summary(attempts.summary())


def _print_summary(found: PolicyRedTeam) -> None:
    lost = sum(found.lost.values())
    print(f"{found.prompts} prompts x {len(found.wrappers)} wrappers" + (f", {lost} calls failed" if lost else ""))
    print(_safe(f"refusals by the refusal detector: {found.detector}"))
    print(_safe(f"judge: {found.judge or 'none; name one with --judge MODEL'}"))
    for title, groups in (("wrappers", found.wrappers), ("categories", found.categories)):
        head = ("not refused", "and on the subject", "judged to give it" if found.judge else "", "more than bare")
        print(f"\n{title:34} " + "".join(f"{cell:24}" for cell in head).rstrip())
        for name, shares in groups.items():
            cells = [shares.answered, shares.on_subject, shares.judged, found.over_bare.get(name)]
            print(_safe(f"{name[:33]:34} " + "".join(f"{_share(cell):24}" for cell in cells).rstrip()))


def _share(found: Interval | None) -> str:
    if found is None or found.value is None:
        return ""
    if found.low is None:
        return f"{found.value:.0%}"
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]"
