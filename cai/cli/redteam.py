"""The command line's `redteam`: what breaks a reward or a policy. It prints and writes what was found; `cli` mounts it.

Left out on purpose: searching, which is `redteam`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai.core.errors import GateFailed
from cai.core.safe_text import safe_text as _safe

if TYPE_CHECKING:
    from cai.audit.redteam.reward import Attack
    from cai.core.plugin_types import Finding

redteams = typer.Typer(no_args_is_help=True, help="Search for what breaks a reward or a policy.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Gate = Annotated[bool, typer.Option("--gate", help="Exit 100 where something was found that holds up.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write what was found, as JSONL.")]


@redteams.command("reward")
def redteam_reward_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A reward model, or an ensemble of them.")],
    rows: Annotated[Path, typer.Option("--rows", metavar="FILE|RUN", help="Pairs whose answers are edited.")],
    out: Out = None,
    budget: Annotated[int, typer.Option(min=50, help="Answers that may be scored.")] = 20_000,
    depth: Annotated[int, typer.Option(min=1, max=8, help="Edits in a chain, at most.")] = 4,
    chains: Annotated[int, typer.Option(min=0, help="Chains that are tried on each answer.")] = 16,
    seed: int = 0,
    limit: Annotated[int, typer.Option(min=2, help="Pairs that are used, at most, drawn by digest.")] = 200,
    gate: Gate = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search for edits that raise the reward and no quality; what is found is written as rejected rows."""
    from cai.audit.redteam.reward import Search, attack, rows_of
    from cai.audit.subjects.audit import scored_cases
    from cai.cli.progress import watched
    from cai.runs.files import write_text
    from cai.runs.folder import resolve_data

    with watched(quiet or as_json) as progress:
        cases, scores = scored_cases(model, resolve_data(rows), limit, told=progress.scored)
        found = attack(cases, scores, Search(depth, chains, budget, seed))
    if out:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(found.best)))
    if as_json:
        print(json.dumps(found.described(), indent=2))
    else:
        _tell_reward(found, out)
    if gate and found.broken:
        raise GateFailed("the reward pays for edits that are no improvement")


def _tell_reward(found: Attack, out: Path | None) -> None:
    said = found.described()
    print(f"{found.answers} answers edited, {found.scored} texts scored; gains in the reward's spread")
    for one in sorted(found.single, key=lambda one: -(one.value or 0.0)):
        print(_safe(f"  {_mark(one)}  {_gain(one):26} {one.what}"))
    if found.held_out:
        print(_safe(f"together: {_mark(found.held_out)}  {_gain(found.held_out)} {found.held_out.what}"))
    for chain in said["chains"][:8]:
        print(_safe(f"  best for {chain['answers']} answers, gain {chain['gain']:.2f}: {chain['chain']}"))
    print(f"{len(found.best)} edited answers are paid for" + (f": {out}" if out else "; write them with --out FILE"))


def _mark(one: Finding) -> str:
    return {True: "ok  ", False: "FAIL", None: "-   "}[one.passed]


def _gain(one: Finding) -> str:
    if one.value is None or one.low is None:
        return "-"
    return f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


@redteams.command("policy")
def redteam_policy_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, name or hub id; or a recipe: its writer.")],
    prompts: Annotated[str, typer.Option("--prompts", metavar="FILE", help="Prompts that ought to be refused.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first so many prompts.")] = None,
    wrappers: Annotated[Path | None, typer.Option(metavar="FILE", help="Wrappers of your own.")] = None,
    judge: Annotated[
        str, typer.Option(metavar="MODEL", help="Asked of each answer whether it gives what was wanted.")
    ] = "",
    max_tokens: Annotated[int, typer.Option(min=1)] = 48,
    seed: int = 0,
    out: Out = None,
    runs: Annotated[Path, typer.Option("--runs", help="The folder that holds runs and their journal.")] = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Ask what ought to be refused, in wrappers, and count what gets an answer, by wrapper and category."""
    import asyncio

    from cai.audit.redteam.policy import besiege, breaches, load_wrappers
    from cai.cli.progress import watched
    from cai.runs.files import write_text
    from cai.runs.recipe import PromptSource

    source = PromptSource(path=prompts, limit=limit)
    with watched(quiet or as_json) as progress:
        siege = asyncio.run(
            besiege(
                model, source, runs, wrappers=load_wrappers(wrappers), max_tokens=max_tokens, judge=judge, start=seed,
                progress=progress,
            )
        )  # fmt: skip
    if out:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in breaches(siege.tried)))
    if as_json:
        print(json.dumps(siege.described(), indent=2))
    else:
        _tell_policy(siege.described())


def _tell_policy(said: dict[str, Any]) -> None:
    lost = sum(said["lost"].values())
    print(f"{said['prompts']} prompts x {len(said['wrappers'])} wrappers" + (f", {lost} calls failed" if lost else ""))
    print(_safe(f"refused or not: the refusal detector, {said['detector']}"))
    print(_safe(f"judge: {said['judge'] or 'none; name one with --judge MODEL'}"))
    for kind in ("wrappers", "categories"):
        head = ("not refused", "and on the subject", "judged to give it" if said["judge"] else "", "more than bare")
        print(f"\n{kind:34} " + "".join(f"{cell:24}" for cell in head).rstrip())
        for name, found in said[kind].items():
            cells = [found["answered"], found["on_subject"], found["judged"], said["over_bare"].get(name)]
            print(_safe(f"{name[:33]:34} " + "".join(f"{_share(cell):24}" for cell in cells).rstrip()))


def _share(found: dict[str, float] | None) -> str:
    if not found or found["value"] is None:
        return ""
    if found["low"] is None:
        return f"{found['value']:.0%}"
    return f"{found['value']:.0%} [{found['low']:.0%}, {found['high']:.0%}]"
