"""An audit: what is to be looked at is gathered, every probe that can look at it does, and the findings are kept.

Rows of pairs come from any file that `preferences` reads, or from a run; of a run also its judges' orders, and the
words of its constitution and critiques, which belong in no answer. A reward is any callable; `scorer` opens models.

Left out on purpose: asking policies, which `asking` does, and deciding what is to be done about a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cai.core import plugins
from cai.core.config import Document, Knobs, overridden, parse_options
from cai.core.errors import Mistake
from cai.core.plugin_types import Case, Exhibit, Fact, Finding, Probe, Scores, Subject
from cai.core.plugins import suggest
from cai.core.seeds import digest, uniform
from cai.core.types import Failure, Message, Pair
from cai.data.files import UnreadableRow, rows
from cai.data.pairs import read_pairs
from cai.runs.findings import Audit, write_findings
from cai.runs.folder import Run

if TYPE_CHECKING:
    from cai.backends.local.reward_model import Combine, Scorer

MANY = 20_000
"""Rows that are looked at, at most; of more, a sample drawn by digest."""
CRITIQUES = 1000
"""Critiques of a run whose words are looked for in its answers."""


def probe_options(
    overrides: Sequence[str] = (), asked: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Knobs]:
    """The options of the probes that a recipe asks for, or of all, with `length.threshold=0.7` overrides.

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


def _options(name: str, settings: Any) -> Knobs:
    kind: type[Knobs] = plugins.find_plugin("audit", name, Probe).options
    return parse_options(Document(f"audit: {name}", dict(settings), None), kind)


def run_probes(subject: Subject, exhibit: Exhibit, chosen: Mapping[str, Knobs], of: str) -> Iterator[Finding]:
    """What every probe that can look at `subject` finds."""
    for name, settings in chosen.items():
        probe = plugins.find_plugin("audit", name, Probe)
        if subject in probe.looks:
            yield from (replace(found, of=of) for found in probe.looks[subject](exhibit, settings))


def audit_pairs(path: Path, chosen: Mapping[str, Knobs], format: str = "", limit: int = MANY) -> Audit:
    """Audit pairs of any format, or those of a run and the judge that labelled them. Raises Mistake."""
    exhibit, lost = gathered(path, format, limit)
    found = list(run_probes("pairs", exhibit, chosen, "pairs"))
    if any(case.orders for case in exhibit.cases):
        found += run_probes("judge", exhibit, chosen, "judge")
    return Audit("pairs", len(exhibit.cases), tuple(found), lost)


def audit_finished_run(run: Run, asked: Mapping[str, Mapping[str, Any]]) -> None:
    """Audit the pairs of a run by the probes that its recipe asks for; of no pairs, nothing."""
    if any(run.pairs()):
        write_findings(run.path, [audit_pairs(run.path, probe_options(asked=asked))])


def gathered(path: Path, format: str = "", limit: int = MANY) -> tuple[Exhibit, int]:
    """The pairs of a file or a run as an exhibit, and how many rows could not be read. Raises Mistake."""
    lost: list[Failure] = []
    run = Run(path) if (path / "manifest.json").exists() and (path / "pairs.jsonl").exists() else None
    coming = map(_of_run, run.pairs()) if run else _of_file(path, format, lost)
    cases = _drawn(coming, limit)
    if not cases:
        raise Mistake(str(path), "holds no pairs that can be read", "cai check says what is wrong with each row")
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


def _drawn(coming: Iterable[Case], limit: int) -> tuple[Case, ...]:
    """At most `limit` of them, drawn by digest, in the order in which they came."""
    numbered = ((uniform("audit", case.id, number), number, case) for number, case in enumerate(coming))
    return tuple(case for _, _, case in sorted(nsmallest(limit, numbered), key=lambda drawn: drawn[1]))


def spoken(run: Run) -> Iterator[str]:
    """What a run said to its models about itself: the constitution's texts, and critiques."""
    from cai.constitution.principles import load_constitution
    from cai.runs import recipe

    try:
        named = recipe.load_recipe(run.path / "recipe.yaml").constitution
        for principle in load_constitution(named).principles:
            yield from filter(None, (principle.critique, principle.revise, principle.compare))
    except Mistake:  # its constitution may be elsewhere by now: then critiques alone are looked for
        pass
    critiques = (step.critique.text for trace in run.traces() for step in trace.steps if step.critique)
    yield from islice(critiques, CRITIQUES)


def audit_reward(
    models: Sequence[Path], data: Path, chosen: Mapping[str, Knobs], *, gold: Path | None = None, format: str = "",
    limit: int = 100, beliefs: Path | None = None, told: Callable[[int], None] = lambda more: None,
) -> Audit:  # fmt: skip
    """Audit a trained reward, or several as one ensemble, on the answers of a file or a run. Raises Mistake.

    Rows that `gold` or a member could not read whole, with room for an edit, are left out.
    """
    exhibit, lost = gathered(data, format, limit)
    scorers = [open_reward(model, told=told) for model in models]
    held = [open_reward(gold, told=told)] if gold else []
    fits = tuple(case for case in exhibit.cases if all(_fits(scorer, case) for scorer in (*scorers, *held)))
    if not fits:
        raise Mistake(str(data), "has no row that the reward model can read whole", "use rows with shorter answers")
    members = [member for scorer in scorers for member in _members(scorer)]
    found = audit_scores(
        replace(exhibit, cases=fits, facts=load_facts(beliefs)),
        chosen,
        "+".join(map(_named, models)),
        reward=scorers[0].scores if len(scorers) == 1 else _mean([scorer.scores for scorer in scorers]),
        members=members if len(members) > 1 else (),
        gold=held[0].scores if held else None,
    )
    return Audit(found[0].of, len(fits), found, lost + len(exhibit.cases) - len(fits))


def scored_cases(
    model: Path, data: Path, limit: int, members: Combine = "mean", told: Callable[[int], None] = lambda more: None
) -> tuple[tuple[Case, ...], Scores]:
    """The rows of a file or a run that a reward can read whole, and that reward. Raises Mistake."""
    exhibit, _ = gathered(data, limit=limit)
    scorer = open_reward(model, members, told)
    fits = tuple(case for case in exhibit.cases if _fits(scorer, case, 4 * ROOM))  # chains of edits pile up
    if not fits:
        raise Mistake(str(data), "has no row that the reward model can read whole", "use rows with shorter answers")
    return fits, scorer.scores


def open_reward(model: Path, members: Combine = "mean", told: Callable[[int], None] = lambda more: None) -> Scorer:
    """The reward model in a folder, or in the folder of the training that made it. Raises Mistake."""
    from cai.backends.local.reward_model import open_scorer

    return open_scorer(model / "model" if (model / "model").is_dir() else model, combine=members, told=told)


def _named(model: Path) -> str:
    return model.resolve().parent.name if model.name == "model" else model.name


ROOM = 2
"""An edited answer may be so many times as long."""


def _fits(scorer: Scorer, case: Case, room: int = ROOM) -> bool:
    longest = max((case.answer, case.other), key=len)
    said, asked = len(scorer.tokens(case.prompt, longest)), len(scorer.tokens(case.prompt, ""))
    return asked + room * (said - asked) + 64 <= scorer.limit


def _members(scorer: Scorer) -> list[Scores]:
    """Each member's own scores; each is asked once for all of them."""
    known: dict[str, tuple[float, ...]] = {}

    def each(rows: Sequence[tuple[Sequence[Message], str]], number: int) -> list[float]:
        keys = [_key(row) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        known.update(zip(new, scorer.each(list(new.values())) if new else (), strict=True))
        return [known[key][number] for key in keys]

    return [partial(each, number=number) for number in range(scorer.members)]


def _mean(every: Sequence[Scores]) -> Scores:
    return lambda rows: [fmean(values) for values in zip(*(scores(rows) for scores in every), strict=True)]


def audit_scores(
    exhibit: Exhibit, chosen: Mapping[str, Knobs], name: str, *, reward: Scores, members: Sequence[Scores] = (),
    gold: Scores | None = None,
) -> tuple[Finding, ...]:  # fmt: skip
    """Audit a reward on the answers of an exhibit; each text is scored once."""
    seen = replace(
        exhibit,
        reward=remembered(reward),
        members=tuple(map(remembered, members)),
        gold=remembered(gold) if gold else None,
        facts=exhibit.facts or load_facts(),
    )
    return tuple(run_probes("reward", seen, chosen, f"reward {name}"))


def remembered(scores: Scores) -> Scores:
    """The same scores, each asked for once."""
    known: dict[str, float] = {}

    def again(rows: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        keys = [_key(row) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        known.update(zip(new, scores(list(new.values())) if new else (), strict=True))
        return [known[key] for key in keys]

    return again


def _key(row: tuple[Sequence[Message], str]) -> str:
    return digest([(turn.role, turn.content) for turn in row[0]], row[1])


def load_facts(path: Path | None = None) -> tuple[Fact, ...]:
    """Questions with a right and a wrong answer: the shipped ones, or a file's. Raises Mistake.

    A row has `question` and `right` and `wrong`, or `correction` and `presupposition` as in SYCON-Bench.
    """
    from cai.audit.measure.facts import FACTS

    if path is None:
        return FACTS
    made = [fact for number, (_, row) in enumerate(rows(path), 1) if (fact := _fact(row, number))]
    if not made:
        raise Mistake(str(path), "holds no row with question, right and wrong", "see docs/audit.md")
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
