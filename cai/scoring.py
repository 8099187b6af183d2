"""Score the answers of a file with one or more reward models, and say how often they agree with its labels.

Left out on purpose: keeping all models in memory; they are asked one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any

from cai import lessons, preferences
from cai.errors import Mistake
from cai.lessons import Lessons
from cai.records import Rows
from cai.scorer import Combine, Scorer, combined, open_scorer
from cai.types import Message


def score(
    models: Sequence[Path],
    data: Path,
    *,
    combine: Combine = "mean",
    k: float = 1.0,
    device: Any = "auto",
    batch: int = 8,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each row of the file, and what they say together. Raises Mistake.

    Pairs give `chosen`, `rejected` and p, the probability that chosen is better; completions give `score`. `members`
    has what every member of every model says, where there are several.
    """
    kind, members, found = _kind(data), list[list[tuple[float, ...]]](), Lessons()
    for model in models:
        scorer = open_scorer(model, batch_size=batch, device=device)
        found = _read(data, kind, scorer)
        members.append(scorer.each(list(_asked(found))))
    each = [tuple(one for said in by_model for one in said) for by_model in zip(*members, strict=True)]
    rows = list(_rows(found, each, combine, k))
    return rows, _summary(found, rows, each)


def _kind(data: Path) -> Rows:
    first = next(iter(preferences.files(data)))
    return "pairs" if preferences.opened(first).format else "messages"


def _read(data: Path, kind: Rows, scorer: Scorer) -> Lessons:
    def count(row: Mapping[str, Any]) -> int:
        return max(len(scorer.tokens(_turns(row), _said(row[side]))) for side in lessons.sides(row))

    return lessons.gather(data, kind, tokens=count, max_length=scorer.limit, held_out=0)


def _asked(found: Lessons) -> Iterator[tuple[tuple[Message, ...], str]]:
    for row in [*found.rows, *found.held_out]:
        yield from ((_turns(row), _said(row[side])) for side in lessons.sides(row))


def _rows(found: Lessons, each: Sequence[tuple[float, ...]], combine: Combine, k: float) -> Iterator[dict[str, Any]]:
    left = iter(each)
    for row in [*found.rows, *found.held_out]:
        said = {("score" if side == "completion" else side): next(left) for side in lessons.sides(row)}
        line: dict[str, Any] = {"id": row["id"]} | {side: combined(one, combine, k) for side, one in said.items()}
        if "chosen" in line:
            line["p"] = 1 / (1 + exp(max(-700.0, min(700.0, line["rejected"] - line["chosen"]))))
            line["label"] = row["p_chosen"]
        if len(next(iter(said.values()))) > 1:
            line["members"] = {side: list(one) for side, one in said.items()}
        yield line


def _summary(found: Lessons, rows: Sequence[Mapping[str, Any]], each: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    said: dict[str, Any] = {"rows": len(rows), "left_out": dict(found.left_out), "members": len(each[0])}
    if rows and "chosen" in rows[0]:
        from cai.train._evaluation import measures

        said |= measures([*found.rows, *found.held_out], [(row["chosen"], row["rejected"]) for row in rows])
    return said


def _turns(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])


def _said(turns: Sequence[Mapping[str, str]]) -> str:
    if not turns:
        raise Mistake("row", "has no answer", "give one")
    return "\n".join(turn["content"] for turn in turns)
