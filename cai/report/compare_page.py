"""Two runs beside each other, row by row: which answers changed, by which principle, and which findings moved.

Rows meet by prompt id and sample. An answer that changed is put down to the first step in which the two lives part: the
draft, or the principle of a round.

Left out on purpose: saying which run is better. A finding that moved has its interval beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappush, heapreplace
from importlib import metadata
from pathlib import Path
from typing import Any

from cai.core.plugin_types import Finding
from cai.core.seeds import uniform
from cai.core.stats import Interval, change
from cai.core.types import Trace
from cai.report.html import rendered
from cai.report.training_sections import marked
from cai.runs.findings import read_findings
from cai.runs.folder import Run
from cai.runs.manifest import Manifest, PrincipleRecord

SHOWN = 100
"""Changed answers that the page shows, drawn by digest."""
Life = tuple[str, ...]
"""What a trace said, step by step: the draft, then each principle with the answer it led to."""


@dataclass(slots=True)
class TraceChanges:
    """What became of the traces of both runs."""

    both: int = 0
    same: int = 0
    only: tuple[int, int] = (0, 0)
    parted: Counter[str] = field(default_factory=Counter)
    """Changed answers by where the two lives part."""
    words: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    shown: list[tuple[float, str, int]] = field(default_factory=list)
    """The changed ones to show: minus their draw, prompt id, sample."""


def compare_runs_page(old: Run, new: Run) -> str:
    """The page that compares two runs. Raises Mistake where one is none."""
    manifests = old.manifest, new.manifest
    rows = compared(old, new)
    facts = {
        "names": (str(old.path), str(new.path)),
        "changed": list(_inputs(*manifests)),
        "principles": list(_principles(*(one.constitution.principles for one in manifests))),
        "counts": [(name, *(one.total(name).out for one in manifests)) for name in _stages(*manifests)],
        "rows": rows,
        "differ": rows.both - rows.same,
        "parted": rows.parted.most_common(),
        "words": change(*rows.words),
        "examples": _examples(old, new, rows),
        "findings": list(_moved(old.path, new.path)),
        "version": metadata.version("cai"),
    }
    return rendered("compare.html.j2", **facts)


def compared(old: Run, new: Run) -> TraceChanges:
    """Both runs' traces, matched. Memory grows with the number of traces, not with their length."""
    from cai.core.seeds import digest

    seen = {_key(trace): (tuple(digest(part) for part in _life(trace)), _count(trace)) for trace in old.traces()}
    rows, unseen = TraceChanges(), 0
    for trace in new.traces():
        found = seen.pop(_key(trace), None)
        if found is None:
            unseen += 1
            continue
        before, words = found
        life = _life(trace)
        now = tuple(digest(part) for part in life)
        rows.both += 1
        rows.words[0].append(words)
        rows.words[1].append(_count(trace))
        if before[-1] == now[-1]:
            rows.same += 1
            continue
        rows.parted[_where(trace, before, now)] += 1
        item = (-uniform("compare", *_key(trace)), *_key(trace))
        (heappush if len(rows.shown) < SHOWN else heapreplace)(rows.shown, item)
    rows.only = len(seen), unseen
    return rows


def _key(trace: Trace) -> tuple[str, int]:
    return trace.prompt.id, trace.sample


def _count(trace: Trace) -> int:
    return len(trace.final.split())


def _life(trace: Trace) -> Life:
    steps = (f"{step.principle}\n{step.critique.text if step.critique else ''}\n{step.answer}" for step in trace.steps)
    return trace.draft.text, *steps, trace.final


def _where(trace: Trace, before: Life, now: Life) -> str:
    if before[0] != now[0]:
        return "the draft"
    parts = zip(before[1:-1], now[1:-1], strict=False)
    step = next((number for number, (old, new) in enumerate(parts) if old != new), None)
    return "the number of rounds" if step is None else trace.steps[step].principle


def _examples(old: Run, new: Run, rows: TraceChanges) -> list[dict[str, Any]]:
    wanted = {(id, sample) for _, id, sample in rows.shown}
    first = {_key(trace): trace.final for trace in old.traces() if _key(trace) in wanted}
    return [
        {"id": trace.prompt.id, "prompt": trace.prompt.messages[-1].content, "diff": marked(first[key], trace.final)}
        for trace in new.traces()
        if (key := _key(trace)) in wanted
    ]


def _stages(old: Manifest, new: Manifest) -> list[str]:
    return list(dict.fromkeys([*old.counts, *new.counts]))


def _inputs(before: Manifest, after: Manifest) -> Iterator[tuple[str, str, str]]:
    """What went in and differs: constitution, templates, prompts, models, seed, cai."""
    old, new = _parts(before), _parts(after)
    for what in ("constitution", "prompts"):
        if old[what].get("digest") != new[what].get("digest"):
            yield what, _named(old[what]), _named(new[what])
    for what in ("templates", "models"):
        for name in sorted({*old[what], *new[what]}):
            if old[what].get(name) != new[what].get(name):
                yield f"{name} {what[:-1]}", _named(old[what].get(name)), _named(new[what].get(name))
    for what in ("seed", "cai"):
        if old[what] != new[what]:
            yield what, str(old[what]), str(new[what])


def _parts(manifest: Manifest) -> dict[str, Any]:
    return manifest.as_json()


def _named(value: Mapping[str, Any] | None) -> str:
    if not value:
        return "–"
    name = next((str(value[key]) for key in ("name", "model", "path") if value.get(key)), "")
    return f"{name} {str(value.get('digest') or value.get('weights') or '')[:12]}".strip()


def _principles(old: Sequence[PrincipleRecord], new: Sequence[PrincipleRecord]) -> Iterator[tuple[str, str]]:
    before, now = ({one.id: asdict(one) for one in listed} for listed in (old, new))
    for id in dict.fromkeys([*before, *now]):
        if id not in before or id not in now:
            yield id, "removed" if id in before else "added"
        elif keys := [key for key in now[id] if before[id].get(key) != now[id][key]]:
            yield id, "changed: " + ", ".join(keys)


def _moved(old: Path, new: Path) -> Iterator[dict[str, Any]]:
    """Findings of both runs whose value or verdict differs, those that changed their verdict first."""
    before, now = _findings(old), _findings(new)
    pairs = [(key, before.get(key), now.get(key)) for key in dict.fromkeys([*before, *now])]
    differ = [(key, a, b) for key, a, b in pairs if _gist(a) != _gist(b)]
    for (of, probe, what), a, b in sorted(differ, key=lambda one: _verdict(one[1]) == _verdict(one[2])):
        turned = _verdict(a) != _verdict(b)
        yield {"of": of, "probe": probe, "what": what, "old": _span(a), "new": _span(b), "turned": turned,
               "verdicts": (_verdict(a), _verdict(b))}  # fmt: skip


def _findings(run: Path) -> dict[tuple[str, str, str], Finding]:
    return {(audit.of, one.probe, one.what): one for audit in read_findings(run) for one in audit.findings}


def _gist(one: Finding | None) -> tuple[float | None, bool | None]:
    return (one.value, one.passed) if one else (None, None)


def _verdict(one: Finding | None) -> str:
    if one is None:
        return "not looked at"
    return "reported" if one.passed is None else "passes" if one.passed else one.severity


def _span(one: Finding | None) -> Interval:
    return Interval(one.value, one.low, one.high, one.n) if one else Interval(None, None, None, 0)
