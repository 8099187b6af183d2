"""Scores the answers of a file with one or more reward models, and measures how well they agree with its labels.

The models are loaded one after the other, not together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from math import exp
from pathlib import Path
from typing import Any, Literal

from cai.backends.local.reward_model import Combine, Scorer, combine_scores, open_scorer
from cai.core.errors import Mistake
from cai.core.plugin_types import Rows
from cai.core.types import Message
from cai.data.pairs import data_files, open_pairs
from cai.data.training_rows import TrainingRow, answer_columns, gather_training_rows

SideScores = list[tuple[float, ...]]
"""For each side of a row, the score by every member of every model."""


def score_file(
    models: Sequence[Path],
    data: Path,
    *,
    combine: Combine = "mean",
    k: float = 1.0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch: int = 8,
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """One output row for each row of the file, and a summary. Raises Mistake.

    Pairs give `chosen`, `rejected` and p, the probability that chosen is better; completions give `score`. `members`
    has the score by every member of every model, where there are several.
    """
    kind = _kind(data)
    rows, scores, left_out = list[TrainingRow](), list[SideScores](), Counter[str]()
    for number, model in enumerate(models):
        scorer = open_scorer(model, batch_size=batch, device=device)
        if number:
            fits = [_tokens(row, scorer) <= scorer.limit for row in rows]
            rows, scores = list(compress(rows, fits)), list(compress(scores, fits))
            left_out["too_long"] += fits.count(False)
        else:
            found = gather_training_rows(
                data, kind, tokens=partial(_tokens, scorer=scorer), max_length=scorer.limit, held_out=0
            )
            rows, left_out = [*found.rows, *found.held_out], found.left_out
            scores = [[()] * len(answer_columns(row)) for row in rows]
        more = iter(scorer.each([(_turns(row), _text(row[side])) for row in rows for side in answer_columns(row)]))
        scores = [[one + next(more) for one in sides] for sides in scores]
    lines = [_line(row, sides, combine, k) for row, sides in zip(rows, scores, strict=True)]
    members = len(scores[0][0]) if scores else 0
    combined = [[combine_scores(one, combine, k) for one in sides] for sides in scores]
    return lines, {"rows": len(rows), "left_out": dict(+left_out), "members": members} | _agreement(rows, combined)


def _kind(data: Path) -> Rows:
    first = next(iter(data_files(data)))
    return "pairs" if open_pairs(first).format else "messages"


def _tokens(row: Mapping[str, Any], scorer: Scorer) -> int:
    """Tokens of a row's longest side."""
    return max(len(scorer.tokens(_turns(row), _text(row[side]))) for side in answer_columns(row))


def _line(row: Mapping[str, Any], scores: SideScores, combine: Combine, k: float) -> dict[str, object]:
    """The output row, with the sides as in the file: a training row with a label below 0.5 has them swapped."""
    names, swapped = answer_columns(row), bool(row.get("turned"))
    sides = dict(zip(["score"] if names == ["completion"] else names, scores[::-1] if swapped else scores, strict=True))
    combined = {name: combine_scores(one, combine, k) for name, one in sides.items()}
    line: dict[str, object] = {"id": row["id"], **combined}
    if "chosen" in combined:
        line["p"] = 1 / (1 + exp(max(-700.0, min(700.0, combined["rejected"] - combined["chosen"]))))
        line["label"] = 1 - row["p_chosen"] if swapped else row["p_chosen"]
    if len(scores[0]) > 1:
        line["members"] = {name: list(one) for name, one in sides.items()}
    return line


def _agreement(rows: Sequence[Mapping[str, Any]], scores: Sequence[Sequence[float]]) -> dict[str, object]:
    if not rows or "chosen" not in rows[0]:
        return {}
    from cai.train.reward_model.evaluation import measures

    return measures(list(rows), [(one, other) for one, other in scores])


def _turns(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])


def _text(turns: Sequence[Mapping[str, str]]) -> str:
    if not turns:
        raise Mistake("row", "has no answer", "give one")
    return "\n".join(turn["content"] for turn in turns)
