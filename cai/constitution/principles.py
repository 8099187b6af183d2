"""Constitutions: load one, identify it, draw a principle for a prompt, show it, compare two, and start a new one.

Draws use weighted rendezvous hashing: each principle has its own random number for a (prompt, round), so that editing
one changes no draw, and adding or removing one moves only its own share.

Left out on purpose: what is wrong with a file (`lint`), and other projects' formats (`convert`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Literal

from cai.constitution.lint import ConstitutionForm, ExampleForm, PrincipleForm, check_constitution
from cai.core.errors import Mistake
from cai.core.plugins import shipped, suggest
from cai.core.seeds import digest, uniforms
from cai.core.types import Constitution, Example, Principle, Prompt

ACTIVE = ("id", "critique", "revise", "compare", "checks", "weight", "applies_to", "priority", "examples")
"""The fields that can change an answer or a draw. Titles, tags and rationales are for people."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a principle differs between two constitutions. `principle` None: the examples that all of them share."""

    principle: str | None
    kind: Literal["added", "removed", "edited"]
    fields: tuple[str, ...] = ()


class NoPrinciple(Mistake):
    """No principle with a weight applies to a prompt: a failure of that prompt, not of the run."""


def load_constitution(source: str | Path) -> Constitution:
    """The constitution in a file, or a shipped one by its name. Raises Mistake with the line of the first error."""
    form, problems = check_constitution(_locate(source))
    errors = [problem for problem in problems if problem.level == "error"]
    if form is None:
        first, more = errors[0], len(errors) - 1
        rest = f" (and {more} more: cai constitution lint {first.file})" if more else ""
        raise Mistake(first.where, first.what, first.fix + rest)
    return _constitution(form)


def constitution_names() -> list[str]:
    """The constitutions that are shipped with the package."""
    return sorted(file.stem for file in shipped("constitutions").glob("*.yaml"))


def principle_digest(principle: Principle) -> str:
    """Identifies everything in a principle that can change an answer or a draw."""
    fields = asdict(principle)
    return digest({name: fields[name] for name in ACTIVE})


def draw_principle(constitution: Constitution, prompt: Prompt, round: int, seed: int, sample: int = 0) -> Principle:
    """The principle for one round of one draft, by weight. Raises NoPrinciple if none applies to the prompt."""
    return ranked(constitution.principles, prompt, seed, "draw", sample, round)[0]


def ranked(principles: Iterable[Principle], prompt: Prompt, seed: int, *moment: object) -> list[Principle]:
    """The principles that apply to a prompt, in the order of a draw by weight; `moment` is part of its seed.

    The first n are a draw of n without replacement. Raises NoPrinciple if none applies.
    """

    tags = prompt.tags
    able = [
        one for one in principles if one.weight > 0 and (not one.applies_to or not set(one.applies_to).isdisjoint(tags))
    ]
    if not able:
        listed = ", ".join(tags) or "none"
        fix = "leave `applies_to` out of at least one principle with a weight above 0"
        raise NoPrinciple(f"prompt {prompt.id}", f"no principle of the constitution applies (its tags: {listed})", fix)
    # -log(u) / weight is exponential with rate `weight`, so the smallest is each one's with P ~ weight
    draws = uniforms((seed, prompt.id, *moment), [principle.id for principle in able])
    scores = [principle.weight / -log(u) for principle, u in zip(able, draws, strict=True)]
    return [able[place] for place in sorted(range(len(able)), key=scores.__getitem__, reverse=True)]


def changes(old: Constitution, new: Constitution) -> list[Change]:
    """Differences in the ACTIVE fields, in the order of `new`, removals last; empty if the digests are equal."""
    before = {principle.id: principle for principle in old.principles}
    after = {principle.id: principle for principle in new.principles}
    found = [Change(None, "edited", ("examples",))] if old.examples != new.examples else []
    for id, principle in after.items():
        if id not in before:
            found.append(Change(id, "added"))
        elif fields := _edited(before[id], principle):
            found.append(Change(id, "edited", fields))
    return found + [Change(id, "removed") for id in before if id not in after]


def data(constitution: Constitution) -> dict[str, object]:
    """Everything in a constitution as JSON values, with the digest of each principle."""
    principles = [asdict(one) | {"digest": principle_digest(one)} for one in constitution.principles]
    return asdict(constitution) | {"principles": principles}


def new_constitution(name: str) -> str:
    """The text of a commented constitution to start from. Raises Mistake unless the name is a valid file name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise Mistake(name or "name", "cannot name a constitution", "use lower-case letters, digits and hyphens")
    text = shipped("constitutions", "starter.yaml").read_text(encoding="utf-8")
    return text.replace("\nname: starter\n", f"\nname: {name}\n", 1)


def constitution_schema() -> dict[str, object]:
    """The JSON Schema of the file format, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ConstitutionForm.model_json_schema()}


def _locate(source: str | Path) -> Path:
    if source in constitution_names():
        return shipped("constitutions", f"{source}.yaml")
    path = Path(source)
    if not path.suffix and not path.exists():
        raise Mistake(
            str(source), "is neither a file nor a shipped constitution", suggest(str(source), constitution_names())
        )
    return path


def _constitution(form: ConstitutionForm) -> Constitution:
    principles = tuple(_principle(one) for one in form.principles)
    examples = _examples(form.examples)
    return Constitution(
        name=form.name,
        version=form.version,
        principles=principles,
        digest=_digest(principles, examples),
        about=form.about,
        tags=form.tags,
        examples=examples,
    )


def _digest(principles: Iterable[Principle], examples: Iterable[Example]) -> str:
    # sorted: the order of principles changes nothing, that of examples does
    return digest(sorted(map(principle_digest, principles)), [asdict(example) for example in examples])


def _principle(form: PrincipleForm) -> Principle:
    given = form.model_dump(exclude={"examples"}, exclude_unset=True)
    return Principle(**given, examples=_examples(form.examples))


def _examples(forms: Iterable[ExampleForm]) -> tuple[Example, ...]:
    return tuple(Example(**form.model_dump(exclude_unset=True)) for form in forms)


def _edited(before: Principle, after: Principle) -> tuple[str, ...]:
    return tuple(name for name in ACTIVE if getattr(before, name) != getattr(after, name))
