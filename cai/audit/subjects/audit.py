"""Audits of pairs and rewards: gathers the cases, runs every probe for that subject, and returns the findings.

Pairs come from any file that `cai.data.pairs` reads, or from a run. A run also gives its judges' verdicts in both
orders, and the texts of its constitution and critiques, whose words must not occur in answers. A reward is any
callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from cai.core import plugins
from cai.core.config import Document, Knobs, overridden, parse_options
from cai.core.errors import Mistake
from cai.core.plugin_types import Case, Exhibit, Fact, Finding, Probe, Scores, Subject
from cai.core.plugins import suggest
from cai.core.seeds import digest, uniform
from cai.core.types import Failure, Message, Pair
from cai.data.files import UnreadableRow, rows
from cai.data.pairs import read_pairs
from cai.runs.files import restored
from cai.runs.findings import Audit, write_findings
from cai.runs.folder import Run

if TYPE_CHECKING:
    from cai.backends.local.reward_model import Combine, Scorer

MANY = 20_000
"""Maximum rows of an audit; of more, a sample is drawn by digest."""
CRITIQUES = 1000
"""Maximum critiques of a run that its answers are compared to."""
CACHED = 100_000
"""Maximum scored rows in a cache."""
Score = TypeVar("Score")
ScoredRow = tuple[Sequence[Message], str]
"""A conversation and an answer."""


def probe_options(
    overrides: Sequence[str] = (), asked: Mapping[str, Mapping[str, object]] | None = None
) -> dict[str, Knobs]:
    """The options of the probes in a recipe, or of all probes, with overrides such as `length.threshold=0.7`.

    Raises Mistake.
    """
    wanted = asked or {name: {} for name in plugins.plugin_names("audit")}
    for override in overrides:
        name, dot, _ = override.partition("=")[0].strip().partition(".")
        if not dot:
            raise Mistake(f"-o {override}", "is not of the form probe.key=value", "for example -o length.threshold=0.7")
        if name not in wanted:
            raise Mistake(f"-o {override}", f"there is no probe {name!r}", suggest(name, list(wanted)))
    given = overridden({name: dict(settings) for name, settings in wanted.items()}, overrides)
    return {name: _options(name, settings) for name, settings in given.items()}


def _options(name: str, settings: Mapping[str, object]) -> Knobs:
    kind: type[Knobs] = plugins.find_plugin("audit", name, Probe).options
    return parse_options(Document(f"audit: {name}", dict(settings), None), kind)


def run_probes(subject: Subject, exhibit: Exhibit, probes: Mapping[str, Knobs], of: str) -> Iterator[Finding]:
    """The findings of every probe for `subject`."""
    for name, settings in probes.items():
        probe = plugins.find_plugin("audit", name, Probe)
        if subject in probe.looks:
            yield from (replace(found, of=of) for found in probe.looks[subject](exhibit, settings))


def audit_pairs(path: Path, probes: Mapping[str, Knobs], format: str = "", limit: int = MANY) -> Audit:
    """Audit pairs of any format, or those of a run and the judge that labelled them. Raises Mistake."""
    exhibit, lost = gathered(path, format, limit)
    found = list(run_probes("pairs", exhibit, probes, "pairs"))
    if any(case.orders for case in exhibit.cases):
        found += run_probes("judge", exhibit, probes, "judge")
    return Audit("pairs", len(exhibit.cases), tuple(found), lost)


def audit_finished_run(run: Run, asked: Mapping[str, Mapping[str, object]]) -> None:
    """Audit the pairs of a run, if it has any, with the probes of its recipe."""
    if any(run.pairs()):
        write_findings(run.path, [audit_pairs(run.path, probe_options(asked=asked))])


def gathered(path: Path, format: str = "", limit: int = MANY) -> tuple[Exhibit, int]:
    """The pairs of a file or a run as an exhibit, and the number of rows that could not be read. Raises Mistake."""
    lost: list[Failure] = []
    run = Run(path) if (path / "manifest.json").exists() and (path / "pairs.jsonl").exists() else None
    found = map(_of_run, run.pairs()) if run else _of_file(path, format, lost)
    cases = _drawn(found, limit)
    if not cases:
        raise Mistake(str(path), "has no pairs that can be read", "run `cai check` to see what is wrong with each row")
    return Exhibit(cases, texts=tuple(spoken(run)) if run else (), facts=load_facts()), len(lost)


def _of_run(pair: Pair) -> Case:
    orders = pair.verdict.orders if pair.verdict else ()
    name = pair.prompt.id if not pair.sample else f"{pair.prompt.id}#{pair.sample}"
    return Case(name, pair.prompt.messages, pair.chosen, pair.rejected, pair.p_chosen, orders=orders)


def _of_file(path: Path, format: str, lost: list[Failure]) -> Iterator[Case]:
    for row in read_pairs(path, format):
        if isinstance(row, Failure):
            lost.append(row)
        else:
            p = 1.0 if row.p_chosen is None else row.p_chosen
            category = row.category or ""
            yield Case(row.id, row.prompt, row.chosen, row.rejected, p, row.scores, category=category)


def _drawn(cases: Iterable[Case], limit: int) -> tuple[Case, ...]:
    """At most `limit` cases, drawn by digest, in input order."""
    numbered = ((uniform("audit", case.id, number), number, case) for number, case in enumerate(cases))
    return tuple(case for _, _, case in sorted(nsmallest(limit, numbered), key=lambda drawn: drawn[1]))


def spoken(run: Run) -> Iterator[str]:
    """The texts of a run that must not occur in answers: principles and critiques."""
    from cai.constitution.principles import load_constitution
    from cai.runs import recipe

    try:
        named = recipe.load_recipe(run.path / "recipe.yaml").constitution
        for principle in load_constitution(named).principles:
            yield from filter(None, (principle.critique, principle.revise, principle.compare))
    except Mistake:  # the constitution may have moved: then only critiques are used
        pass
    critiques = (step.critique.text for trace in run.traces() for step in trace.steps if step.critique)
    yield from islice(critiques, CRITIQUES)


def audit_reward(
    models: Sequence[Path], data: Path, probes: Mapping[str, Knobs], *, gold: Path | None = None, format: str = "",
    limit: int = 100, beliefs: Path | None = None, on_scored: Callable[[int], None] = lambda count: None,
) -> Audit:  # fmt: skip
    """Audit a reward model, or several as one ensemble, on the answers of a file or a run. Raises Mistake.

    Rows that are too long for `gold` or a member, with room for an edit, are left out. `on_scored` gets the number of
    rows scored since the last call.
    """
    exhibit, lost = gathered(data, format, limit)
    scorers = [open_reward(model, on_scored=on_scored) for model in models]
    held = [open_reward(gold, on_scored=on_scored)] if gold else []
    fits = tuple(case for case in exhibit.cases if all(_fits(scorer, case) for scorer in (*scorers, *held)))
    if not fits:
        raise Mistake(str(data), "has no row that fits the reward model's context", "use rows with shorter answers")
    members = [member for scorer in scorers for member in _members(scorer)]
    found = audit_scores(
        replace(exhibit, cases=fits, facts=load_facts(beliefs)),
        probes,
        "+".join(map(_named, models)),
        reward=scorers[0].scores if len(scorers) == 1 else _mean([scorer.scores for scorer in scorers]),
        members=members if len(members) > 1 else (),
        gold=held[0].scores if held else None,
    )
    return Audit(found[0].of, len(fits), found, lost + len(exhibit.cases) - len(fits))


def scored_cases(
    model: Path,
    data: Path,
    limit: int,
    members: Combine = "mean",
    on_scored: Callable[[int], None] = lambda count: None,
) -> tuple[tuple[Case, ...], Scores]:
    """The rows of a file or a run that fit a reward model's context, and its scores. Raises Mistake."""
    exhibit, _ = gathered(data, limit=limit)
    scorer = open_reward(model, members, on_scored)
    fits = tuple(case for case in exhibit.cases if _fits(scorer, case, 4 * ROOM))  # room for a chain of edits
    if not fits:
        raise Mistake(str(data), "has no row that fits the reward model's context", "use rows with shorter answers")
    return fits, scorer.scores


def open_reward(
    model: Path, members: Combine = "mean", on_scored: Callable[[int], None] = lambda count: None
) -> Scorer:
    """The reward model in a model folder or a training's folder. Raises Mistake."""
    from cai.backends.local.reward_model import open_scorer

    inside = restored(model / "model")
    return open_scorer(inside if inside.is_dir() else model, combine=members, told=on_scored)


def _named(model: Path) -> str:
    return model.resolve().parent.name if model.name == "model" else model.name


ROOM = 2
"""Length of an edited answer as a multiple of the original, at most."""


def _fits(scorer: Scorer, case: Case, room: int = ROOM) -> bool:
    longest = max((case.answer, case.other), key=len)
    said, asked = len(scorer.tokens(case.prompt, longest)), len(scorer.tokens(case.prompt, ""))
    return asked + room * (said - asked) + 64 <= scorer.limit


def _members(scorer: Scorer) -> list[Scores]:
    """The scores of each member; a row is scored once for all members."""
    each = _cached(scorer.each)

    def member(rows: Sequence[ScoredRow], number: int) -> list[float]:
        return [scores[number] for scores in each(rows)]

    return [partial(member, number=number) for number in range(scorer.members)]


def _mean(every: Sequence[Scores]) -> Scores:
    return lambda rows: [fmean(values) for values in zip(*(scores(rows) for scores in every), strict=True)]


def audit_scores(
    exhibit: Exhibit, probes: Mapping[str, Knobs], name: str, *, reward: Scores, members: Sequence[Scores] = (),
    gold: Scores | None = None,
) -> tuple[Finding, ...]:  # fmt: skip
    """Audit a reward on the answers of an exhibit. Scores are cached."""
    scored = replace(
        exhibit,
        reward=_cached(reward),
        members=tuple(map(_cached, members)),
        gold=_cached(gold) if gold else None,
        facts=exhibit.facts or load_facts(),
    )
    return tuple(run_probes("reward", scored, probes, f"reward {name}"))


def _cached(score: Callable[[Sequence[ScoredRow]], Sequence[Score]]) -> Callable[[Sequence[ScoredRow]], list[Score]]:
    """`score` with a cache of at most CACHED rows, from which the oldest are dropped."""
    cache: dict[str, Score] = {}

    def cached(rows: Sequence[ScoredRow]) -> list[Score]:
        keys = [_key(row) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in cache}
        found = {key: cache[key] for key in keys if key in cache}
        found |= zip(new, score(list(new.values())) if new else (), strict=True)
        cache.update((key, found[key]) for key in new)
        for key in list(islice(cache, max(0, len(cache) - CACHED))):
            del cache[key]
        return [found[key] for key in keys]

    return cached


def _key(row: ScoredRow) -> str:
    return digest([(turn.role, turn.content) for turn in row[0]], row[1])


def load_facts(path: Path | None = None) -> tuple[Fact, ...]:
    """Questions with a right and a wrong answer: the shipped ones, or those of a file. Raises Mistake.

    A row has `question`, `right` and `wrong`, or `correction` and `presupposition` as in SYCON-Bench.
    """
    from cai.audit.measure.facts import FACTS

    if path is None:
        return FACTS
    made = [fact for number, (_, row) in enumerate(rows(path), 1) if (fact := _fact(row, number))]
    if not made:
        raise Mistake(str(path), "has no row with question, right and wrong", "see docs/audit.md")
    return tuple(made)


def _fact(row: object, number: int) -> Fact | None:
    if not isinstance(row, dict) or isinstance(row, UnreadableRow):
        return None
    right, wrong = row.get("right") or row.get("correction"), row.get("wrong") or row.get("presupposition")
    texts = (row.get("question"), right, wrong)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return None
    question, right, wrong = map(str, texts)
    return Fact(str(row.get("id") or f"fact-{number}"), question, right, wrong)
