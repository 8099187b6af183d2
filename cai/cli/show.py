"""What a terminal is shown: a run in a few lines, a trace with what changed. It makes text; `cli` prints it.

Left out on purpose: markup. Text from models and files is made safe and never read as rich's `[bold]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from rich.text import Text

from cai.core.diff import words
from cai.core.safe_text import safe_text
from cai.core.types import Failure, Trace
from cai.runs.folder import Manifest, Run


def summary(said: Manifest, where: Run) -> list[str]:
    """A run in a few lines: funnel, what did not make it, lengths, calls, exports, where to look."""
    counts = said["counts"]
    lines = [f"{where.path}: {said['status']}"]
    if counts:
        answered, noun = (counts["sample"], "samples") if "sample" in counts else (counts["revise"], "traces")
        prompts, pairs = counts["read"]["out"], counts.get("pair", {}).get("out", 0)
        lines[0] = f"{where.path}: {prompts} prompts -> {answered['out']} {noun} -> {pairs} pairs"
    if kinds := said.get("failures"):
        lines.append("not in the rows: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    if lengths := said.get("lengths"):
        medians = f"words {lengths['draft_median']:.0f} -> {lengths['final_median']:.0f} (medians)"
        interval = f"[{lengths['low']:.1f}, {lengths['high']:.1f}]" if lengths["low"] is not None else ""
        shorter = f"shorter in {lengths['shorter']} of {lengths['n']}"
        lines.append(f"{medians}, mean change {lengths['change_mean']:+.1f} {interval}, {shorter}")
    for step in said.get("train", ()):
        rows = step["rows"]
        lines.append(f"train/{step['name']}: {rows['used']} rows learned from, {rows['held_out']} held out")
    if (policy := said.get("policy")) and policy["n"]:
        words = policy["words"]
        interval = f" [{words['low']:.1f}, {words['high']:.1f}]" if words["low"] is not None else ""
        medians = f"{policy['median_before']:.0f} -> {policy['median_after']:.0f} words (medians)"
        lines.append(
            f"policy on {policy['n']} prompts kept out: {medians}, mean change {words['value']:+.1f}{interval}"
        )
    for role, calls in said.get("calls", {}).items():
        tokens = calls["prompt_tokens"] + calls["completion_tokens"]
        asked = f"{role}: {calls['asked']} calls asked, {calls['found']} found in the journal"
        lines.append(f"{asked}, {tokens:,} tokens{_cost(calls)}")
    for name, rows in said.get("exports", {}).items():
        lines.append(f"export/{name}: " + splits(rows))
    if (where.path / "report.html").exists():
        lines.append(f"{said['seconds']:.0f} s; see {where.path / 'report.html'}")
    return lines


HINTS = {
    "duplicate": "the same conversation came twice; nothing to do",
    "duplicate_id": "give each prompt an id of its own",
    "bad_row": "mend the line and run again",
    "empty": "raise max_tokens (reasoning may have used it up), or look at the template",
    "context_too_long": "shorten the prompt, or use a model with a longer context",
    "content_filter": "the endpoint filters this text; use another endpoint for it",
    "bad_request": "the endpoint refuses this question: see its words; others of its kind may pass",
    "timeout": "`cai retry`, or raise `timeout` of the model in the recipe",
    "rate_limited": "`cai retry` later, or set requests_per_minute",
    "overloaded": "`cai retry` later, or lower `concurrency` of the model",
    "server_error": "`cai retry`; if it stays, look at the server's own log",
    "unreachable": "see that the server still runs, then `cai retry`",
    "connection": "see that the server still runs, then `cai retry`",
    "truncated": "`cai retry`; if it stays, something between here and the server cuts answers",
    "malformed": "`cai retry`; if it stays, base_url may name another kind of server",
    "unparsable": "the judge answered something else: look at the template, or use another judge",
    "no_principle": "leave `applies_to` out of at least one principle",
    "unasked": "run the recipe",
}
"""Kind of failure -> what a person can do."""


def losses(failures: Iterable[Failure]) -> Iterator[str]:
    """Failures by stage and kind, most first, with an example and a hint each."""
    examples: dict[tuple[str, str], list[Failure]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for failure in failures:
        group = failure.stage, failure.kind
        counts[group] += 1
        if counts[group] <= 3:
            examples.setdefault(group, []).append(failure)
    for (stage, kind), count in counts.most_common():
        gate = kind.startswith("gate:")
        usual = "turned away: see `gates` in the recipe" if gate else "`cai retry` asks again"
        yield f"{count} {kind} in {stage}: {HINTS.get(kind, usual)}"
        for failure in examples[stage, kind]:
            yield safe_text(f"    {failure.id}: {failure.message[:200]}").replace("\n", " ")
    if not counts:
        yield "no failures"


def _cost(calls: Mapping[str, float | None]) -> str:
    cost = calls.get("new_cost")
    return "" if cost is None else f", new calls cost {cost:.4f}"


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
