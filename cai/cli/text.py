"""What several commands print: a run in a few lines, its failures, a trace with what changed.

Text from models and files is made safe and is never read as markup such as rich's `[bold]`.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from rich.text import Text

from cai.core.diff import word_diff
from cai.core.safe_text import safe_text
from cai.core.stats import Interval
from cai.core.types import Failure, Trace
from cai.runs.budget import CallTally
from cai.runs.folder import Run
from cai.runs.manifest import LengthChange, Manifest, PolicyChange


def summary(manifest: Manifest, run: Run) -> list[str]:
    """A run in a few lines: funnel, what did not make it, lengths, trainings, calls, exports, where to look."""
    lines = [_funnel(manifest, run)]
    if manifest.failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(manifest.failures.items()))
        lines.append(f"not in the rows: {kinds}")
    lines += [_lengths(manifest.lengths)] if manifest.lengths else []
    lines += [
        f"train/{one.name}: {one.rows.used} rows learned from, {one.rows.held_out} held out" for one in manifest.train
    ]
    lines += [_policy(manifest.policy)] if manifest.policy and manifest.policy.n else []
    lines += [_labels(manifest)] if manifest.total("judge").entered else []
    for role, calls in manifest.calls.items():
        lines += _calls(role, calls)
    lines += [f"export/{name}: {split_line(rows)}" for name, rows in manifest.exports.items()]
    if (run.path / "report.html").exists():
        starts = f" in {len(manifest.starts)} starts" if len(manifest.starts) > 1 else ""
        lines.append(f"{manifest.seconds:.0f} s{starts}; see {run.path / 'report.html'}")
    return lines


def _funnel(manifest: Manifest, run: Run) -> str:
    if not manifest.counts:
        return f"{run.path}: {manifest.status}"
    stage, noun = ("sample", "sample") if "sample" in manifest.counts else ("revise", "trace")
    prompts, answered, pairs = (manifest.total(name).out for name in ("read", stage, "pair"))
    funnel = counted(prompts, "prompt"), counted(answered, noun), counted(pairs, "pair")
    return f"{run.path}: {' -> '.join(funnel)}"


def _lengths(lengths: LengthChange) -> str:
    medians = f"words {lengths.draft_median:.0f} -> {lengths.final_median:.0f} (medians)"
    interval = f"[{lengths.low:.1f}, {lengths.high:.1f}]" if lengths.low is not None else ""
    shorter = f"shorter in {lengths.shorter} of {lengths.n}"
    return f"{medians}, mean change {lengths.change_mean:+.1f} {interval}, {shorter}"


def _policy(policy: PolicyChange) -> str:
    words = policy.words or Interval(None, None, None, 0)
    interval = f" [{words.low:.1f}, {words.high:.1f}]" if words.low is not None else ""
    medians = f"{policy.median_before or 0:.0f} -> {policy.median_after or 0:.0f} words (medians)"
    return f"policy on {policy.n} prompts kept out: {medians}, mean change {words.value or 0:+.1f}{interval}"


def _labels(manifest: Manifest) -> str:
    """Comparisons: every one is a label, a tie, an abstention or a failure."""
    judged, abstained = manifest.total("judge"), manifest.failures.get("abstained", 0)
    came_to = f"{judged.out - manifest.ties} decided, {manifest.ties} tied, {abstained} abstained"
    return f"{counted(judged.entered, 'comparison')}: {came_to}, {judged.failed - abstained} failed"


def _calls(role: str, calls: CallTally) -> Iterator[str]:
    """What a model was asked and what that cost; then what was wasted, and what is an estimate, where there is any."""
    tokens = calls.prompt_tokens + calls.completion_tokens
    retries = f" in {counted(calls.requests, 'request')}" if calls.requests > calls.asked else ""
    cost = "" if calls.new_cost is None else f", cost {calls.new_cost:.4f}"
    found = f"{calls.found} found in the journal"
    yield f"{role}: {counted(calls.asked, 'call')} asked{retries}, {found}, {tokens:,} tokens of new calls{cost}"
    wasted = calls.booked_prompt_tokens + calls.booked_completion_tokens - tokens
    if wasted > 0:
        cost = "" if calls.wasted_cost is None else f", cost {calls.wasted_cost:.4f} of the above"
        yield f"  wasted: {wasted:,} tokens on requests that led to no answer{cost}"
    if calls.estimated:
        how = "one token for every 4 bytes; the endpoint gave no usage that can be believed"
        yield f"  estimated: tokens of {counted(calls.estimated, 'request')} ({how})"
    if calls.unanswered:
        how = "cut or timed out; counted with the most that they can have used"
        yield f"  unknown: tokens of {counted(calls.unanswered, 'request')} ({how})"


def counted(number: int, noun: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


HINTS = {
    "duplicate": "the same conversation came twice; nothing to do",
    "duplicate_id": "give each prompt an id of its own",
    "bad_row": "fix the line and run again",
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


def failure_lines(failures: Iterable[Failure]) -> Iterator[str]:
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


def split_line(rows: Mapping[str, int]) -> str:
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
    for kind, part in word_diff(before, after):
        shape = "{}" if colour else _BRACKETS.get(kind, "{}")
        marked.append(shape.format(safe_text(part)), _STYLE.get(kind, ""))
    return marked


def _head(title: str) -> Text:
    return Text(f"\n{safe_text(title)}", "bold")


def _plain(content: str, style: str = "") -> Text:
    return Text(safe_text(content), style)


def print_trace(trace: Trace) -> None:
    """Print one trace, in colour on a terminal."""
    from rich.console import Console

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    console = Console(no_color=not colour, highlight=False, soft_wrap=True)
    for text in story(trace, colour=colour):
        console.print(text)


def print_manifest(manifest: Manifest, run: Run, as_json: bool) -> None:
    """Print a run in a few lines, or its manifest as JSON."""

    print(json.dumps(manifest.as_json(), indent=2) if as_json else "\n".join(summary(manifest, run)))
