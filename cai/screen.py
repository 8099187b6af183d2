"""What a terminal is shown: a run in a few lines, a trace with what changed. It makes text; `cli` prints it.

Left out on purpose: markup. Text from models and files is made safe and never read as rich's `[bold]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.text import Text

from cai.diff import words
from cai.runs import Manifest, Run
from cai.safe import safe_text
from cai.types import Trace


def summary(said: Manifest, where: Run) -> list[str]:
    """A run in a few lines: funnel, what did not make it, lengths, calls, exports, where to look."""
    counts = said["counts"]
    lines = [f"{where.path}: {said['status']}"]
    if counts:
        prompts, traces, pairs = counts["read"]["out"], counts["revise"]["out"], counts.get("pair", {}).get("out", 0)
        lines[0] = f"{where.path}: {prompts} prompts -> {traces} traces -> {pairs} pairs"
    if kinds := said.get("failures"):
        lines.append("not in the rows: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    if lengths := said.get("lengths"):
        medians = f"words {lengths['draft_median']:.0f} -> {lengths['final_median']:.0f} (medians)"
        interval = f"[{lengths['low']:.1f}, {lengths['high']:.1f}]" if lengths["low"] is not None else ""
        shorter = f"shorter in {lengths['shorter']} of {lengths['n']}"
        lines.append(f"{medians}, mean change {lengths['change_mean']:+.1f} {interval}, {shorter}")
    for role, calls in said.get("calls", {}).items():
        tokens = calls["prompt_tokens"] + calls["completion_tokens"]
        lines.append(f"{role}: {calls['asked']} calls asked, {calls['found']} found in the journal, {tokens:,} tokens")
    for name, rows in said.get("exports", {}).items():
        lines.append(f"export/{name}: " + splits(rows))
    if (where.path / "report.html").exists():
        lines.append(f"{said['seconds']:.0f} s; see {where.path / 'report.html'}")
    return lines


def splits(rows: Mapping[str, int]) -> str:
    """`58 train, 22 test`."""
    return ", ".join(f"{count} {split}" for split, count in rows.items())


def story(trace: Trace, *, colour: bool) -> Iterator[Text]:
    """One trace from prompt to last revision, with a word diff of each; without colour the diff is in brackets."""
    yield _head(f"{trace.prompt.id} (sample {trace.sample})")
    for message in trace.prompt.messages:
        yield _plain(f"{message.role}: {message.content}")
    yield _head("draft")
    yield _plain(trace.draft.text)
    answer = trace.draft.text
    for step in trace.steps:
        title = f"round {step.round + 1} · {step.principle}"
        if step.critique:
            yield _head(f"{title} · critique" + (f" · {step.verdict}" if step.verdict else ""))
            yield _plain(step.critique.text)
        if step.revision:
            yield _head(f"{title} · revision")
            yield _changed(answer, step.revision.text if step.answer is None else step.answer, colour)
        for hit in step.gates:
            yield _plain(f"gate {hit.gate}: {hit.action} ({hit.detail})", "yellow")
        answer = step.answer or answer


_STYLE = {"gone": "red strike", "new": "green underline"}
_BRACKETS = {"gone": "[-{}-]", "new": "{{+{}+}}"}


def _changed(before: str, after: str, colour: bool) -> Text:
    marked = Text()
    for kind, part in words(before, after):
        shape = "{}" if colour else _BRACKETS.get(kind, "{}")
        marked.append(shape.format(safe_text(part)), _STYLE.get(kind, ""))
    return marked


def _head(title: str) -> Text:
    return Text(f"\n{safe_text(title)}", "bold")


def _plain(content: str, style: str = "") -> Text:
    return Text(safe_text(content), style)
