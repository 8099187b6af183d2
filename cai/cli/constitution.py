"""The commands of `constitution`: lint, show, new, schema, import, diff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cai.core.errors import GateFailed, Mistake
from cai.core.safe_text import safe_text as _safe

constitutions = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Work on a constitution file.")
File = Annotated[Path, typer.Argument(metavar="FILE")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


@constitutions.command("lint")
def lint_command(file: File, as_json: Json = False) -> None:
    """Report every problem of a constitution with its line and a fix."""
    from dataclasses import asdict

    from cai.constitution.lint import lint as find

    problems = find(file)
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems]))
    for problem in [] if as_json else problems:
        print(_safe(str(problem)))
    if any(problem.level == "error" for problem in problems):
        raise typer.Exit(GateFailed.exit_code)
    if not as_json and not problems:
        print(f"{file}: in order")


@constitutions.command("show")
def show_constitution_command(name: Annotated[str, typer.Argument(metavar="NAME")], as_json: Json = False) -> None:
    """The principles of a constitution: a file, or a shipped name."""
    from cai.constitution.principles import data, load_constitution

    loaded = load_constitution(name)
    shown = data(loaded)
    if as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    print(f"{loaded.name} {loaded.version}  {loaded.digest[:12]}")
    total = sum(principle.weight for principle in loaded.principles)
    for principle in loaded.principles:
        print(f"\n{principle.id}  {principle.weight / total:.1%}  {_safe(principle.title)}")
        for form in ("critique", "revise", "compare"):
            if text := getattr(principle, form):
                print(f"  {form:9}{_safe(text)}")


@constitutions.command("new")
def new_constitution_command(file: File) -> None:
    """Write a commented constitution to start from."""
    from cai.constitution.principles import new_constitution
    from cai.runs.files import write_text

    if file.exists():
        raise Mistake(str(file), "is there already", "choose another name")
    write_text(file, new_constitution(file.stem))
    print(file)


@constitutions.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of constitution files, for editors."""
    from cai.constitution.principles import constitution_schema

    print(json.dumps(constitution_schema(), indent=2))


@constitutions.command("import")
def import_constitution_command(
    file: File, out: Annotated[Path | None, typer.Option("--out", help="Where to write.")] = None
) -> None:
    """Turn another project's principles (llm-swarm, NeMo, LangChain, ICAI) into a constitution; lint it next."""
    from cai.constitution.convert import convert
    from cai.runs.files import write_text

    text = convert(file)
    if out is None:
        print(text, end="")
        return
    if out.exists():
        raise Mistake(str(out), "is there already", "choose another name")
    write_text(out, text)
    print(out)


@constitutions.command("diff")
def diff_command(old: File, new: File, as_json: Json = False) -> None:
    """What changed between two constitutions, principle by principle."""
    from dataclasses import asdict

    from cai.constitution import principles
    from cai.constitution.principles import load_constitution

    changes = principles.changes(load_constitution(old), load_constitution(new))
    if as_json:
        print(json.dumps([asdict(change) for change in changes]))
        return
    for change in changes:
        name = change.principle or "the shared examples"
        print(f"{change.kind:8} {name}" + (f" ({', '.join(change.fields)})" if change.fields else ""))
    if not changes:
        print("nothing that can change an answer")
