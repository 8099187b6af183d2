"""What came after the rows: each training and its curves, the policy before and after, and what the audit found.

Left out on purpose: every logged quantity. A method's few that tell how it went are drawn; the rest is in
metrics.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cai.core import diff
from cai.core.plugin_types import Finding
from cai.core.safe_text import safe_text
from cai.core.stats import Interval
from cai.report import svg
from cai.runs.files import appended
from cai.runs.findings import Audit, read_findings
from cai.runs.folder import Run

Facts = dict[str, object]

CURVES = (
    ("loss", "loss"),
    ("accuracy", "accuracy, reward model"),
    ("rewards/accuracies", "accuracy, implicit reward"),
    ("rewards/margins", "margin, implicit reward"),
    ("reward", "reward"),
    ("kl", "KL to the start, nats an answer"),
    ("entropy", "entropy"),
    ("length", "length, tokens"),
    ("disagreement", "disagreement of the reward models"),
)
"""Quantities that are drawn where a training logged them, and what they are called."""
SHOWN = 24
"""Prompts answered before and after that the page holds."""
WIDE = 400
"""Words of an answer that are compared; of a longer one the rest is left out."""


def trainings(run: Path) -> Facts | None:
    """Each training of the run, in the order of its folder's making."""
    done = sorted((run / "train").glob("*/settings.json"), key=lambda file: file.stat().st_mtime_ns)
    digest = Run(run).digest if done else ""
    rows = [row for file in done if (row := _training(file.parent, digest))]
    return {"rows": rows} if rows else None


def _training(folder: Path, digest: str) -> Facts | None:
    settings, done = _json(folder / "settings.json"), _json(folder / "figures.json")
    if settings is None:
        return None
    return {
        "name": folder.name,
        "method": settings["method"],
        "model": settings["model"]["name"],
        "finished": done is not None,
        "stale": _is_of(settings, folder.parents[1]) and settings["data"]["digest"] != digest,
        "rows": done["rows"] if done else None,
        "seconds": done["seconds"] if done else None,
        "figures": list(_figures(done["figures"])) if done else [],
        "curves": list(_curves(folder / "metrics.jsonl")),
        "path": str(folder),
    }


def _is_of(settings: Mapping[str, Any], run: Path) -> bool:
    return Path(settings.get("data", {}).get("path", "")).name == run.name


def _figures(figures: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, str]]:
    for key, value in figures.items():
        label = f"{name} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping) and "low" in value:
            yield label, _span(value)
        elif isinstance(value, Mapping):
            yield from _figures(value, label)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield label, f"{value:.4g}"
        elif isinstance(value, str):
            yield label, value


def _span(found: Mapping[str, Any]) -> str:
    if found.get("value") is None:
        return "–"
    between = f" [{found['low']:.3g}, {found['high']:.3g}]" if found.get("low") is not None else ""
    return f"{found['value']:.3g}{between}" + (f", n = {found['n']}" if found.get("n") else "")


def _curves(file: Path) -> Iterator[Facts]:
    lines = appended(file)
    for key, title in CURVES:
        points = [(float(line["step"]), float(line[key])) for line in lines if _drawable(line, key)]
        if len(points) > 1:
            yield {"title": title, "svg": svg.line_chart(points), "last": points[-1][1]}


def _drawable(line: Mapping[str, Any], key: str) -> bool:
    return isinstance(line.get(key), int | float) and isinstance(line.get("step"), int | float)


def policy(run: Path) -> Facts | None:
    """The writer and the trained policy on prompts that no training saw."""
    found = _json(run / "policy.json")
    if found is None or not found["n"]:
        return None
    words = found["words"]
    return {
        "found": found,
        "change": Interval(words["value"], words["low"], words["high"], words["n"]),
        "kept": _span(found["kept"]),
        "another": _span(found["kept_of_another"]),
        "rows": [{**row, "diff": marked(row["before"], row["after"])} for row in found["rows"][:SHOWN]],
        "shown": min(SHOWN, len(found["rows"])),
    }


def marked(old: str, new: str) -> Markup:
    """The new text with what went and what came marked, word by word."""
    old, new = (" ".join(text.split(" ")[:WIDE]) for text in (old, new))
    tags = {"gone": "del", "new": "ins"}
    parts = (
        Markup("<{0}>{1}</{0}>").format(Markup(tags[one.kind]), safe_text(one.text))
        if one.kind in tags
        else Markup("{}").format(safe_text(one.text))
        for one in diff.word_diff(old, new)
    )
    return Markup("").join(parts)


def audits(run: Path) -> Facts | None:
    """A line for each finding: value, interval, threshold, verdict, examples."""
    found = read_findings(run)
    return {"audits": [_audit(audit) for audit in found]} if found else None


def _audit(audit: Audit) -> Facts:
    findings = audit.findings
    ordered = sorted(findings, key=lambda one: (one.passed is not False, one.passed is None))
    ends = [end for one in findings for end in (one.value, one.low, one.high) if end is not None]
    along = svg.ruler(ends or [0.0])
    rows = [
        {**asdict(one), "span": _span({**asdict(one), "n": 0}), "whisker": svg.whisker(_interval(one), along)}
        for one in ordered
    ]
    return {"of": audit.of, "n": audit.rows, "failed": len(audit.failed), "rows": rows, "scale": svg.scale(along)}


def _finding(one: Finding, along: svg.Axis) -> Facts:
    facts = asdict(one)
    return {**facts, "span": _span({**facts, "n": 0}), "whisker": svg.whisker(_interval(one), along)}


def _interval(one: Finding) -> Interval:
    return Interval(one.value, one.low, one.high, one.n)


def _json(file: Path) -> dict[str, Any] | None:
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else None
