"""Shape the chosen traces for the page: texts cut to a size one can read, each revision as a word diff.

Left out on purpose: HTML. The page gets JSON and sets it as text, so nothing a model wrote can become markup.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from cai.core import diff
from cai.core.safe_text import safe_text
from cai.core.types import Completion, GateHit, Step, Trace
from cai.report.tally import RunTally, count_words, failed, gate_marks, key
from cai.runs.folder import Run

BUDGET = 3_500_000
"""Bytes of JSON for all examples together: a page stays under 5 MB whatever the models wrote."""
SHOWN = 4_000
"""Characters of one text that are shown; what is cut is counted."""
TURNS = 8
"""Last turns of a conversation that are shown."""
_REACH = 40_000  # characters of a text that the diff looks at, before it is cut to what is shown
_ID = 200  # characters of a prompt's id that are shown
_NOTE = 300  # characters of a gate's or a failure's reason that are shown
_ESCAPE = re.compile(r"\\[ubfr]")
"""What JSON writes for a character that is not to be looked at as it is."""
_SIGNS = {"same": 0, "gone": -1, "new": 1}


@dataclass(frozen=True, slots=True)
class TraceExample:
    """A trace as the page shows it: `marks` are what it can be found by, `json` may stand inside a script element."""

    key: str
    id: str
    marks: frozenset[str]
    json: Markup


class _Fate(NamedTuple):
    """What came of a trace after the rounds: a pair, or the failure that stands for it. Without the texts."""

    pair: bool
    what: str
    detail: str
    gates: tuple[GateHit, ...]


def collect(run: Run, tally: RunTally) -> list[TraceExample]:
    """The traces that `tally` chose, in the order of the run, as far as the budget reaches."""
    order = tally.chosen()
    wanted = frozenset(order)
    fates = _fates(run, wanted)
    numbers = {number for number, own in enumerate(tally.keys) if own in wanted}
    traces = ((key(trace.prompt.id, trace.sample), trace) for trace in run.traces(numbers))
    found = {own: _example(own, trace, fates[own]) for own, trace in traces}
    kept = _within_budget([found[own] for own in order if own in found])
    return [example for example in found.values() if example.key in kept]


def embedded(value: object) -> Markup:
    """JSON that may stand inside a script element: no text in it can end the element, hide or reorder."""
    text = _json(value)
    if not (text.isascii() and text.isprintable()) or _ESCAPE.search(text):  # else every text in it is safe already
        text = _json(_safe(value))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _within_budget(examples: Iterable[TraceExample]) -> set[str]:
    kept, left = set(), BUDGET
    for example in examples:
        size = len(example.json.encode("utf-8", "backslashreplace"))
        if size <= left:
            kept.add(example.key)
            left -= size
    return kept


def _fates(run: Run, wanted: frozenset[str]) -> dict[str, list[_Fate]]:
    fates: dict[str, list[_Fate]] = defaultdict(list)
    for pair in run.pairs():
        if (own := key(pair.prompt.id, pair.sample)) in wanted:
            fates[own].append(_Fate(True, pair.source, "", pair.gates))
    for lost in run.failures():
        if lost.stage == "pair" and (own := key(lost.id, lost.sample)) in wanted:
            fates[own].append(_Fate(False, lost.kind, lost.message[:_NOTE], ()))
    return fates


def _example(own: str, trace: Trace, fates: Sequence[_Fate]) -> TraceExample:
    marks = frozenset(_marks(trace, fates))
    messages = trace.prompt.messages
    shaped = {
        "key": own,
        "id": trace.prompt.id[:_ID],
        "sample": trace.sample,
        "tags": list(trace.prompt.tags[:20]),
        "earlier": max(0, len(messages) - TURNS),
        "messages": [{"role": message.role, **_cut(message.content)} for message in messages[-TURNS:]],
        "draft": _completion(trace.draft),
        "gates": [_hit(hit) for hit in trace.gates],
        "steps": _steps(trace),
        "final": _cut(trace.final),
        "overall": _overall(trace),
        "fates": [fate._asdict() | {"gates": [_hit(hit) for hit in fate.gates]} for fate in fates],
        "marks": sorted(marks),
    }
    return TraceExample(own, trace.prompt.id[:_ID], marks, embedded(shaped))


def _steps(trace: Trace) -> list[dict[str, object]]:
    shaped, current = [], trace.draft.text
    for step in trace.steps:
        shaped.append(_step(step, current))
        current = current if step.answer is None else step.answer
    return shaped


def _step(step: Step, before: str) -> dict[str, object]:
    refused = step.revision if step.answer is None else None
    return {
        "round": step.round,
        "principle": step.principle,
        "verdict": step.verdict,
        "critique": _completion(step.critique) if step.critique else None,
        "diff": _diff(before, step.answer) if step.answer is not None else None,
        "refused": _completion(refused) if refused else None,
        "finish": step.revision.finish if step.revision else None,
        "gates": [_hit(hit) for hit in step.gates],
    }


def _overall(trace: Trace) -> dict[str, object] | None:
    """Draft against final, where more than one step lies between them."""
    accepted = sum(step.answer is not None for step in trace.steps)
    return _diff(trace.draft.text, trace.final) if accepted > 1 else None


def _diff(before: str, after: str) -> dict[str, object]:
    segments = diff.word_diff(before[:_REACH], after[:_REACH])
    shown = _clip(segments)
    beyond = [max(0, len(text) - _REACH) for text in (before, after)]
    cut = [_length(segments, side) - _length(shown, side) for side in ("gone", "new")]
    return {
        "parts": [[_SIGNS[kind], text] for kind, text in shown],
        "words": [count_words(before), count_words(after)],
        "hidden": [beyond[0] + cut[0], beyond[1] + cut[1]],
    }


def _clip(segments: Iterable[diff.Segment]) -> list[diff.Segment]:
    """Segments up to where both texts can no longer be shown side by side."""
    shown, left = [], {"gone": SHOWN, "new": SHOWN}
    for kind, text in segments:
        sides = ("gone", "new") if kind == "same" else (kind,)
        piece = text[: min(left[side] for side in sides)]
        shown += [diff.Segment(kind, piece)] if piece else []
        if kind == "same" and piece != text:
            break
        left |= {side: left[side] - len(piece) for side in sides}
    return shown


def _length(segments: Iterable[diff.Segment], side: str) -> int:
    return sum(len(text) for kind, text in segments if kind in ("same", side))


def _marks(trace: Trace, fates: Sequence[_Fate]) -> set[str]:
    marks = {*gate_marks(trace), *(f"gate:{hit.gate}" for fate in fates for hit in fate.gates)}
    marks |= {failed(fate.what) for fate in fates if not fate.pair}
    marks |= {f"verdict:{step.verdict}" for step in trace.steps if step.verdict}
    return marks | {"outcome:pair" if any(fate.pair for fate in fates) else "outcome:no pair"}


def _completion(completion: Completion) -> dict[str, object]:
    thinking = _cut(completion.thinking) if completion.thinking else None
    return {**_cut(completion.text), "finish": completion.finish, "thinking": thinking}


def _hit(hit: GateHit) -> dict[str, object]:
    return {"gate": hit.gate, "action": hit.action, "detail": hit.detail[:_NOTE]}


def _cut(text: str) -> dict[str, object]:
    return {"text": text[:SHOWN], "hidden": max(0, len(text) - SHOWN), "words": count_words(text)}


def _safe(value: object) -> object:
    """A JSON value with every text in it made safe to look at."""
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, list):
        return [_safe(item) for item in value]
    return {safe_text(name): _safe(item) for name, item in value.items()} if isinstance(value, dict) else value
