"""Build a run's report: one offline HTML page, from the manifest and two passes over the rows.

A section is a function here (what it says), a macro in `sections.html.j2` (how it looks) and a line in SECTIONS.

Left out on purpose: anything fetched, anything that runs but one hashed script, and all rows: examples are sampled,
the rest is in the run's JSONL.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cai.core.stats import Interval, interval
from cai.report import examples, svg, tally
from cai.report import judge_page as judge
from cai.report import training_sections as after
from cai.report.examples import Example
from cai.report.html import rendered
from cai.report.tally import Drawn, Tally
from cai.runs.folder import Run

Facts = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class View:
    """What a section may look at."""

    run: Run
    manifest: Mapping[str, Any]  # JSON as the pipeline wrote it
    tally: Tally
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page; it is left out where `facts` finds nothing to say."""

    id: str
    title: str
    facts: Callable[[View], Facts | None]


def build(run: Run, sample: int = 200) -> str:
    """The report of `run` as HTML, with at most `sample` (>= 1) example traces. Raises Mistake."""
    counted = tally.count(run, sample)
    view = View(run, run.manifest, counted, examples.collect(run, counted))
    sections = [(section, facts) for section in SECTIONS if (facts := section.facts(view)) is not None]
    data = _data(view)
    return rendered("page.html.j2", manifest=view.manifest, headline=headline(view), sections=sections, data=data)


def headline(view: View) -> Facts:
    """The run in a few numbers."""
    counts, models = view.manifest["counts"], view.manifest["models"]
    return {
        "prompts": _of(counts, "read", "out"),
        "traces": view.tally.traces,
        "pairs": _of(counts, "pair", "out"),
        "lengths": view.manifest.get("lengths"),
        "policy": trained if (trained := view.manifest.get("policy")) and trained["n"] else None,
        "models": " and ".join(dict.fromkeys(identity.get("model", role) for role, identity in models.items())),
    }


def funnel(view: View) -> Facts:
    """From prompts to pairs, and what was lost on the way, by name."""
    counts = view.manifest["counts"]
    steps = (
        ("prompts read", _of(counts, "read", "in"), ()),
        ("usable prompts", _of(counts, "read", "out"), ("read",)),
        *_answers(view),
        ("pairs", _of(counts, "pair", "out"), ("judge", "pair")),
    )
    most = max(1, *(count for _, count, _ in steps))
    rows = [
        {"name": name, "count": count, "bar": svg.bar(count / most), "lost": _lost(view.tally, stages)}
        for name, count, stages in steps
    ]
    return {"rows": rows, "stages": [_stage(name, **stage) for name, stage in counts.items()]}


def _answers(view: View) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    counts = view.manifest["counts"]
    if "sample" in counts:
        return (("samples", view.tally.traces, ("sample",)),)
    drafts = ("drafts", _of(counts, "draft", "out"), ("draft",))
    return drafts, ("traces", view.tally.traces, ("critique", "revise"))


def principles(view: View) -> Facts:
    """Each principle: how often drawn, what its critiques found, what its revisions did to the length."""
    listed = view.manifest["constitution"]["principles"]
    drawn = [(one, view.tally.principles.get(one["id"], Drawn())) for one in listed]
    moved = [interval(found.changes, seed=view.manifest["seed"]) for _, found in drawn]
    ends = [end for one in moved for end in (one.value, one.low, one.high) if end is not None]
    along = svg.ruler(ends or [0.0])
    rows = [
        _principle(one, found, change) | {"whisker": svg.whisker(change, along)}
        for (one, found), change in zip(drawn, moved, strict=True)
    ]
    judged = any(found.verdicts.keys() - {"none"} for _, found in drawn)
    weighted = len({one["weight"] for one in listed}) > 1
    return {"rows": rows, "judged": judged, "weighted": weighted, "scale": svg.scale(along)}


def _principle(one: Mapping[str, Any], found: Drawn, change: Interval) -> dict[str, object]:
    return {
        "id": one["id"],
        "title": one["title"] or one["id"],
        "critique": one["critique"],
        "revise": one["revise"],
        "weight": one["weight"],
        "drawn": found.steps,
        "verdicts": {name: found.verdicts[name] for name in ("fault", "clean", "unclear")},
        "accepted": found.accepted,
        "change": change,
    }


def lengths(view: View) -> Facts | None:
    """Words before and after, as two distributions and as paired changes."""
    facts = view.manifest.get("lengths")
    if not facts or not view.tally.traces:
        return None
    drafts, finals = view.tally.drafts, view.tally.finals
    mean = Interval(facts["change_mean"], facts["low"], facts["high"], facts["n"])
    changes = [after - before for before, after in zip(drafts, finals, strict=True)]
    return {
        "facts": facts,
        "same": facts["n"] - facts["shorter"] - facts["longer"],
        "mean": mean,
        "mirror": svg.mirror(drafts, finals, (facts["draft_median"], facts["final_median"])),
        "spread": svg.spread(changes, mean),
    }


def judged(view: View) -> Facts | None:
    """Who judged, and how far their labels can be trusted."""
    found = view.manifest.get("judge")
    return None if found is None else judge.facts(found)


def gates(view: View) -> Facts | None:
    """What each gate noticed and did, with traces to look at."""
    noticed = view.manifest.get("gates")
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
    return {"rows": rows}


def failures(view: View) -> Facts:
    """What went in and did not come out, and why."""
    shown = {example.key for example in view.examples}
    rows = []
    for (stage, kind), lost in sorted(view.tally.lost.items(), key=lambda item: -item[1].count):
        links = [(one, key if stage == "pair" and key in shown else None) for key, one in lost.examples]
        rows.append({"stage": stage, "kind": kind, "count": lost.count, "examples": links})
    return {"rows": rows}


def training(view: View) -> Facts | None:
    """What was trained on the rows."""
    return after.trainings(view.run.path)


def policy(view: View) -> Facts | None:
    """The writer and the last policy, on prompts kept out."""
    return after.policy(view.run.path)


def audit(view: View) -> Facts | None:
    """What the probes found."""
    return after.audits(view.run.path)


def cost(view: View) -> Facts | None:
    """Calls, tokens and time, by model."""
    calls = view.manifest.get("calls")
    if not calls:
        return None
    identity = view.manifest["models"]
    rows = [{"role": role, "model": identity.get(role, {}).get("model", ""), **spent} for role, spent in calls.items()]
    return {"rows": rows, "seconds": view.manifest["seconds"]}


def traces(view: View) -> Facts | None:
    """The example traces; the script fills them in from the page's data."""
    if not view.examples:
        return None
    return {"shown": len(view.examples), "all": view.tally.traces, "path": str(view.run.path)}


def provenance(view: View) -> Facts:
    """Everything that identifies the run, and the command that makes it again."""
    path, name = view.run.path, view.manifest["name"]
    return {
        **{part: view.manifest.get(part, {}) for part in ("recipe", "templates", "prompts", "models", "packages")},
        "constitution": view.manifest["constitution"],
        "exports": view.manifest.get("exports", {}),
        "seed": view.manifest["seed"],
        "command": shlex.join(["cai", "run", str(path / "recipe.yaml"), "--name", name]),
    }


SECTIONS = (
    Section("funnel", "From prompts to pairs", funnel),
    Section("principles", "Principles", principles),
    Section("lengths", "Length before and after", lengths),
    Section("judge", "Judges", judged),
    Section("gates", "Gates", gates),
    Section("failures", "Failures", failures),
    Section("training", "Training", training),
    Section("policy", "The policy before and after", policy),
    Section("audit", "Audit", audit),
    Section("traces", "Traces", traces),
    Section("cost", "Calls, tokens, time", cost),
    Section("provenance", "Provenance", provenance),
)


def _lost(counted: Tally, stages: tuple[str, ...]) -> list[tuple[str, int]]:
    """What was lost between two counts, by kind."""
    kinds = Counter[str]()
    for (stage, kind), lost in counted.lost.items():
        kinds[kind] += lost.count if stage in stages else 0
    return [(kind, count) for kind, count in kinds.most_common() if count]


def _stage(name: str, **numbers: int) -> dict[str, object]:
    return {"name": name, **numbers, "sum": numbers["in"] == numbers["out"] + numbers["failed"]}


def _of(counts: Mapping[str, Mapping[str, int]], stage: str, column: str) -> int:
    return counts.get(stage, {}).get(column, 0)  # an interrupted run has not reached every stage


def _data(view: View) -> Markup:
    titles = {one["id"]: one["title"] for one in view.manifest["constitution"]["principles"]}
    shown = Markup(",").join(example.json for example in view.examples)
    return Markup('{{"principles":{},"examples":[{}]}}').format(examples.embedded(titles), shown)
