"""Score the answers of a file with one or more reward models, and say how often they agree with its labels.

Left out on purpose: keeping all models in memory; they are asked one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from math import exp
from pathlib import Path
from typing import Any

from cai.backends.local.reward_model import Combine, Scorer, combine_scores, open_scorer
from cai.core.errors import Mistake
from cai.core.plugin_types import Rows
from cai.core.types import Message
from cai.data.pairs import data_files, open_pairs
from cai.data.training_rows import TrainingRow, answer_columns, gather_training_rows

Said = list[tuple[float, ...]]
"""For each side of a row, what every member of every model says of it."""


def score_file(
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
    kind = _kind(data)
    rows, said, left_out = list[TrainingRow](), list[Said](), Counter[str]()
    for number, model in enumerate(models):
        scorer = open_scorer(model, batch_size=batch, device=device)
        if number:
            fits = [_tokens(row, scorer) <= scorer.limit for row in rows]
            rows, said = list(compress(rows, fits)), list(compress(said, fits))
            left_out["too_long"] += fits.count(False)
        else:
            found = gather_training_rows(
                data, kind, tokens=partial(_tokens, scorer=scorer), max_length=scorer.limit, held_out=0
            )
            rows, left_out = [*found.rows, *found.held_out], found.left_out
            said = [[()] * len(answer_columns(row)) for row in rows]
        more = iter(scorer.each([(_turns(row), _said(row[side])) for row in rows for side in answer_columns(row)]))
        said = [[one + next(more) for one in sides] for sides in said]
    lines = [_line(row, sides, combine, k) for row, sides in zip(rows, said, strict=True)]
    return lines, _summary(rows, [[combine_scores(one, combine, k) for one in sides] for sides in said], said, left_out)


def _kind(data: Path) -> Rows:
    first = next(iter(data_files(data)))
    return "pairs" if open_pairs(first).format else "messages"


def _tokens(row: Mapping[str, Any], scorer: Scorer) -> int:
    """Of a row's longest side."""
    return max(len(scorer.tokens(_turns(row), _said(row[side]))) for side in answer_columns(row))


def _line(row: Mapping[str, Any], said: Said, combine: Combine, k: float) -> dict[str, Any]:
    """What is printed of a row, its sides as the file has them: lessons turn a label below one half round."""
    names, turned = answer_columns(row), bool(row.get("turned"))
    sides = dict(zip(["score"] if names == ["completion"] else names, said[::-1] if turned else said, strict=True))
    line: dict[str, Any] = {"id": row["id"]} | {name: combine_scores(one, combine, k) for name, one in sides.items()}
    if "chosen" in line:
        line["p"] = 1 / (1 + exp(max(-700.0, min(700.0, line["rejected"] - line["chosen"]))))
        line["label"] = 1 - row["p_chosen"] if turned else row["p_chosen"]
    if len(said[0]) > 1:
        line["members"] = {name: list(one) for name, one in sides.items()}
    return line


def _summary(
    rows: Sequence[Mapping[str, Any]], scores: Sequence[Sequence[float]], said: Sequence[Said], left_out: Counter[str]
) -> dict[str, Any]:
    members = len(said[0][0]) if said else 0
    found: dict[str, Any] = {"rows": len(rows), "left_out": dict(+left_out), "members": members}
    if rows and "chosen" in rows[0]:
        from cai.train.reward_model.evaluation import measures

        found |= measures(list(rows), [(one, other) for one, other in scores])
    return found


def _turns(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])


def _said(turns: Sequence[Mapping[str, str]]) -> str:
    if not turns:
        raise Mistake("row", "has no answer", "give one")
    return "\n".join(turn["content"] for turn in turns)
