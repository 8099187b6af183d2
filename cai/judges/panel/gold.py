"""Measure judges: on pairs that people have labelled, and on a run's own labels, where the right answer is unknown.

A gold file is any file of preference pairs. Rows that cannot be read or judged are counted by kind.

Left out on purpose: mixing files. Each has a card of its own; a mean over two populations describes neither.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from cai.constitution.principles import NoPrinciple
from cai.core.concurrency import crowd
from cai.core.errors import CallFailed, Mistake
from cai.core.seeds import uniform
from cai.core.types import Failure, Pair, Prompt
from cai.data.pairs import Preference, read_pairs
from cai.judges.panel.card import Judged, judge_figures, judged_row, own_family
from cai.judges.panel.panel import Panel
from cai.runs.judge_card import JudgeFigures

MOST = 10_000
"""Labels of a run that its card counts, drawn by digest; more would hardly narrow the intervals."""


async def measure_judge(
    panel: Panel, path: Path, limit: int | None = None, tick: Callable[[], None] = lambda: None
) -> JudgeFigures:
    """The card of a panel on the pairs of a file, or on `limit` of them drawn by digest. Raises Mistake."""
    lost = Counter[str]()
    rows = list(_drawn(_labelled(path, lost), limit, panel.seed))
    if not rows:
        raise _no_pairs(path, lost)
    judged: dict[int, list[Judged]] = {}
    waiting = enumerate(rows)

    async def worker() -> None:
        for place, row in waiting:
            try:
                judged[place] = await _judged(panel, row)
            except CallFailed as error:
                lost[error.kind] += 1
            except NoPrinciple:
                lost["no_principle"] += 1
            tick()

    await crowd(worker, panel.concurrency)
    found = [judged[place] for place in sorted(judged)]
    figures = judge_figures((one for one, *_ in found), gold=True, seed=panel.seed)
    each: tuple[JudgeFigures, ...] = ()
    if len(panel.jurors) > 1:
        parts = list(zip(*found, strict=True))[1:]
        each = tuple(
            replace(judge_figures(part, gold=True, seed=panel.seed), judge=f"{juror.method} ({juror.model})")
            for juror, part in zip(panel.jurors, parts, strict=False)
        )
    return replace(figures, pairs=len(rows), lost=dict(lost), judges=each)


def check_gold(path: Path) -> None:
    """Raises Mistake where a file has no pair to judge, before any model call."""
    lost = Counter[str]()
    if not any(True for _ in _labelled(path, lost)):
        raise _no_pairs(path, lost)


def _no_pairs(path: Path, lost: Counter[str]) -> Mistake:
    what = ", ".join(f"{count} {kind}" for kind, count in lost.most_common()) or "it is empty"
    return Mistake(str(path), f"has no pair to judge ({what})", "see `cai check`")


def _labelled(path: Path, lost: Counter[str]) -> Iterator[Preference]:
    """The pairs of which one side is better, that side as `chosen`."""
    for row in read_pairs(path):
        if isinstance(row, Failure):
            lost[row.kind] += 1
        elif row.tie:
            lost["tie_in_gold"] += 1
        elif row.chosen == row.rejected:
            lost["identical"] += 1
        elif not (row.chosen.strip() and row.rejected.strip()):
            lost["empty"] += 1
        elif row.p_chosen is not None and row.p_chosen < 0.5:
            yield replace(row, chosen=row.rejected, rejected=row.chosen)
        else:
            yield row


def _drawn(rows: Iterable[Preference], limit: int | None, seed: int) -> Iterable[Preference]:
    if limit is None:
        return rows
    return heapq.nsmallest(limit, rows, key=lambda row: uniform(seed, "gold", row.id))


async def _judged(panel: Panel, row: Preference) -> list[Judged]:
    """The panel's verdict, and that of each judge where there are several."""
    prompt, category = Prompt(row.id, row.prompt), row.category or ""
    verdict = await panel.verdict(prompt, row.chosen, row.rejected, "gold")
    first = panel.shows_first(prompt, "gold")
    return [
        judged_row(row.id, one, row.chosen, row.rejected, shown_first=first, category=category)
        for one in (verdict, *verdict.parts)
    ]


def label_figures(pairs: Iterable[Pair], writers: Mapping[str, str], seed: int) -> JudgeFigures:
    """The card of a run's own labels; `writers` names the model behind each role that pairs can name."""
    kept = heapq.nsmallest(MOST, _labels(pairs, writers), key=lambda row: uniform(seed, "labels", row.id))
    return judge_figures(sorted(kept, key=lambda row: row.id), gold=False, seed=seed)


def _labels(pairs: Iterable[Pair], writers: Mapping[str, str]) -> Iterator[Judged]:
    for pair in pairs:
        if pair.verdict is None:
            continue
        chosen, rejected = (writers.get(name.partition("@")[0], "") for name in pair.writers or ("", ""))
        own = own_family(pair.verdict.judge, chosen, rejected)
        id = f"{pair.prompt.id}/{pair.source}"
        yield judged_row(id, pair.verdict, pair.chosen, pair.rejected, shown_first=True, own=own)
