"""Build a run's report: one offline HTML page, from the manifest and two passes over the rows.

A section is a function here (what it says), a macro in `sections.html.j2` (how it looks) and a line in SECTIONS.

Left out on purpose: anything fetched, anything that runs but one hashed script, and all rows: examples are sampled,
the rest is in the run's JSONL.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from markupsafe import Markup

from cai.core.stats import Interval, interval
from cai.report import examples, svg, tally
from cai.report.examples import TraceExample
from cai.report.html import rendered
from cai.report.judge_page import judge_section
from cai.report.tally import DrawnPrinciple, RunTally
from cai.report.training_sections import audits, policy, trainings
from cai.runs.folder import Run
from cai.runs.manifest import Manifest, PrincipleRecord, StageCount

Facts = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class View:
    """What a section may look at."""

    run: Run
    manifest: Manifest
    tally: RunTally
    examples: list[TraceExample]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page; it is left out where `facts` finds nothing to say."""

    id: str
    title: str
    facts: Callable[[View], Facts | None]


def run_page(run: Run, sample: int = 200) -> str:
    """The report of `run` as HTML, with at most `sample` (>= 1) example traces. Raises Mistake."""
    counted = tally.tally_run(run, sample)
    view = View(run, run.manifest, counted, examples.collect(run, counted))
    sections = [(section, facts) for section in SECTIONS if (facts := section.facts(view)) is not None]
    data = _data(view)
    return rendered("page.html.j2", manifest=view.manifest, headline=_headline(view), sections=sections, data=data)


def _headline(view: View) -> Facts:
    """The run in a few numbers."""
    manifest = view.manifest
    return {
        "prompts": manifest.total("read").out,
        "traces": view.tally.traces,
        "pairs": manifest.total("pair").out,
        "lengths": manifest.lengths,
        "policy": manifest.policy if manifest.policy and manifest.policy.n else None,
        "models": " and ".join(
            dict.fromkeys(identity.get("model", role) for role, identity in manifest.models.items())
        ),
    }


def _funnel(view: View) -> Facts:
    """From prompts to pairs, and what was lost on the way, by name."""
    manifest = view.manifest
    steps = (
        ("prompts read", manifest.total("read").entered, ()),
        ("usable prompts", manifest.total("read").out, ("read",)),
        *_answers(view),
        ("pairs", manifest.total("pair").out, ("judge", "pair")),
    )
    most = max(1, *(count for _, count, _ in steps))
    rows = [
        {"name": name, "count": count, "bar": svg.bar(count / most), "lost": _lost(view.tally, stages)}
        for name, count, stages in steps
    ]
    return {"rows": rows, "stages": [_stage(name, stage) for name, stage in manifest.counts.items()]}


def _answers(view: View) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    if "sample" in view.manifest.counts:
        return (("samples", view.tally.traces, ("sample",)),)
    drafts = ("drafts", view.manifest.total("draft").out, ("draft",))
    return drafts, ("traces", view.tally.traces, ("critique", "revise"))


def _principles(view: View) -> Facts:
    """Each principle: how often drawn, what its critiques found, what its revisions did to the length."""
    listed = view.manifest.constitution.principles
    drawn = [(one, view.tally.principles.get(one.id, DrawnPrinciple())) for one in listed]
    moved = [interval(found.changes, seed=view.manifest.seed) for _, found in drawn]
    ends = [end for one in moved for end in (one.value, one.low, one.high) if end is not None]
    along = svg.ruler(ends or [0.0])
    rows = [
        _principle(one, found, change) | {"whisker": svg.whisker(change, along)}
        for (one, found), change in zip(drawn, moved, strict=True)
    ]
    judged = any(found.verdicts.keys() - {"none"} for _, found in drawn)
    weighted = len({one.weight for one in listed}) > 1
    return {"rows": rows, "judged": judged, "weighted": weighted, "scale": svg.scale(along)}


def _principle(one: PrincipleRecord, found: DrawnPrinciple, change: Interval) -> dict[str, object]:
    return {
        "id": one.id,
        "title": one.title or one.id,
        "critique": one.critique,
        "revise": one.revise,
        "weight": one.weight,
        "drawn": found.steps,
        "verdicts": {name: found.verdicts[name] for name in ("fault", "clean", "unclear")},
        "accepted": found.accepted,
        "change": change,
    }


def _lengths(view: View) -> Facts | None:
    """Words before and after, as two distributions and as paired changes."""
    facts = view.manifest.lengths
    if not facts or not view.tally.traces:
        return None
    drafts, finals = view.tally.drafts, view.tally.finals
    mean = Interval(facts.change_mean, facts.low, facts.high, facts.n)
    changes = [after - before for before, after in zip(drafts, finals, strict=True)]
    return {
        "facts": facts,
        "same": facts.n - facts.shorter - facts.longer,
        "mean": mean,
        "mirror": svg.mirror(drafts, finals, (facts.draft_median, facts.final_median)),
        "spread": svg.change_histogram(changes, mean),
    }


def _judged(view: View) -> Facts | None:
    """Who judged, and how far their labels can be trusted."""
    found = view.manifest.judge
    return None if found is None else judge_section(found)


def _gates(view: View) -> Facts | None:
    """What each gate noticed and did, with traces to look at."""
    noticed = view.manifest.gates
    if not noticed:
        return None
    most = max(sum(actions.values()) for actions in noticed.values()) or 1
    rows = [
        {
            "name": name,
            "actions": {action: actions.get(action, 0) for action in ("drop", "tag", "repair")},
            "bar": svg.bar(sum(actions.values()) / most),
            "examples": [one for one in view.examples if f"gate:{name}" in one.marks][: tally.NAMED],
        }
        for name, actions in sorted(noticed.items(), key=lambda item: -sum(item[1].values()))
    ]
    return {"rows": rows, "contradictions": _contradictions(view)}


def _contradictions(view: View) -> tuple[int, int] | None:
    """Critiques whose words and verdict contradict each other, of all that concluded; None where there are none."""
    noticed = sum(view.manifest.gates.get("contradiction", {}).values())
    concluded = sum(one.verdicts["fault"] + one.verdicts["clean"] for one in view.tally.principles.values())
    return (noticed, concluded) if noticed else None


def _failures(view: View) -> Facts:
    """What went in and did not come out, and why."""
    shown = {example.key for example in view.examples}
    rows = []
    for (stage, kind), lost in sorted(view.tally.lost.items(), key=lambda item: -item[1].count):
        links = [(one, key if stage == "pair" and key in shown else None) for key, one in lost.examples]
        rows.append({"stage": stage, "kind": kind, "count": lost.count, "examples": links})
    return {"rows": rows}


def _training(view: View) -> Facts | None:
    """What was trained on the rows."""
    return trainings(view.run.path)


def _policy(view: View) -> Facts | None:
    """The writer and the last policy, on prompts kept out."""
    return policy(view.run.path)


def _audit(view: View) -> Facts | None:
    """What the probes found."""
    return audits(view.run.path)


def _cost(view: View) -> Facts | None:
    """Calls, tokens and time, by model."""
    calls = view.manifest.calls
    if not calls:
        return None
    identity = view.manifest.models
    rows = [
        {"role": role, "model": identity.get(role, {}).get("model", ""), **asdict(spent)}
        for role, spent in calls.items()
    ]
    return {"rows": rows, "seconds": view.manifest.seconds, "starts": len(view.manifest.starts)}


def _traces(view: View) -> Facts | None:
    """The example traces; the script fills them in from the page's data."""
    if not view.examples:
        return None
    return {"shown": len(view.examples), "all": view.tally.traces, "path": str(view.run.path)}


def _provenance(view: View) -> Facts:
    """Everything that identifies the run, and the command that makes it again."""
    path, name = view.run.path, view.manifest.name
    return {
        **{part: getattr(view.manifest, part) for part in ("recipe", "templates", "prompts", "models", "packages")},
        "constitution": view.manifest.constitution,
        "exports": view.manifest.exports,
        "seed": view.manifest.seed,
        "command": shlex.join(["cai", "run", str(path / "recipe.yaml"), "--name", name]),
    }


SECTIONS = (
    Section("funnel", "From prompts to pairs", _funnel),
    Section("principles", "Principles", _principles),
    Section("lengths", "Length before and after", _lengths),
    Section("judge", "Judges", _judged),
    Section("gates", "Gates", _gates),
    Section("failures", "Failures", _failures),
    Section("training", "Training", _training),
    Section("policy", "The policy before and after", _policy),
    Section("audit", "Audit", _audit),
    Section("traces", "Traces", _traces),
    Section("cost", "Calls, tokens, time", _cost),
    Section("provenance", "Provenance", _provenance),
)


def _lost(counted: RunTally, stages: tuple[str, ...]) -> list[tuple[str, int]]:
    """What was lost between two counts, by kind."""
    kinds = Counter[str]()
    for (stage, kind), lost in counted.lost.items():
        kinds[kind] += lost.count if stage in stages else 0
    return [(kind, count) for kind, count in kinds.most_common() if count]


def _stage(name: str, count: StageCount) -> dict[str, object]:
    numbers = {"in": count.entered, "out": count.out, "failed": count.failed}
    return {"name": name, **numbers, "sum": count.entered == count.out + count.failed}


def _data(view: View) -> Markup:
    titles = {one.id: one.title for one in view.manifest.constitution.principles}
    shown = Markup(",").join(example.json for example in view.examples)
    return Markup('{{"principles":{},"examples":[{}]}}').format(examples.embedded(titles), shown)
