"""The same preference pairs as the files of other projects hold them, for tests: one writer for each format.

Left out on purpose: what only one format can say, such as votes and scores; a test that wants it writes its own rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

Turn = tuple[str, str]


@dataclass(frozen=True)
class Plain:
    """A pair as a test thinks of it: turns of (role, text) and two answers."""

    asked: tuple[Turn, ...]
    chosen: str
    rejected: str

    def but(self, **changed: Any) -> Plain:
        return replace(self, **changed)


def _roles(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def _from(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[role], "value": text} for role, text in turns]


def _parts(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    return [
        {"role": role, "content": [{"type": "text", "value": text}], "loss_weight": float(role == "assistant")}
        for role, text in turns
    ]


def _transcript(turns: Iterable[Turn]) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[role]}: {text}" for role, text in turns)


def _nemo(pair: Plain) -> dict[str, Any]:
    names = {"user": "User", "assistant": "Assistant"}
    turns = "".join(f"<extra_id_1>{names[role]}\n{text}\n" for role, text in pair.asked)
    return {
        "prompt": f"<extra_id_0>System\n\n{turns}<extra_id_1>Assistant\n",
        "chosen_response": f"{pair.chosen}\n<extra_id_1>",
        "rejected_response": f"{pair.rejected}\n<extra_id_1>",
    }


def _pandalm(pair: Plain) -> dict[str, Any]:
    votes = {"annotator1": 2, "annotator2": 2, "annotator3": 2}
    return {
        "instruction": pair.asked[-1][1],
        "input": "",
        "response1": pair.rejected,
        "response2": pair.chosen,
        **votes,
    }


def _sides(turns: Callable[[Iterable[Turn]], Any], prompted: bool) -> Callable[[Plain], dict[str, Any]]:
    def row(pair: Plain) -> dict[str, Any]:
        asked = () if prompted else pair.asked
        sides = {
            name: turns([*asked, ("assistant", text)])
            for name, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
        }
        return {"prompt": turns(pair.asked), **sides} if prompted else sides

    return row


FORMATS: dict[str, Callable[[Plain], dict[str, Any]]] = {
    "trl": _sides(_roles, prompted=True),
    "trl-implicit": _sides(_roles, prompted=False),
    "trl-text": lambda pair: {"prompt": pair.asked[-1][1], "chosen": pair.chosen, "rejected": pair.rejected},
    "hh-rlhf": _sides(_transcript, prompted=False),
    "sharegpt": lambda pair: {
        "conversations": _from(pair.asked),
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
    },
    "alpaca": lambda pair: {"instruction": pair.asked[-1][1], "chosen": pair.chosen, "rejected": pair.rejected},
    "orca": lambda pair: {
        "system": "",
        "question": pair.asked[-1][1],
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    },
    "llamafactory-v1": lambda pair: {
        "chosen_messages": _parts([*pair.asked, ("assistant", pair.chosen)]),
        "rejected_messages": _parts([*pair.asked, ("assistant", pair.rejected)]),
    },
    "nemo": _nemo,
    "nemo-rl": lambda pair: {
        "context": _roles(pair.asked),
        "completions": [
            {"rank": 1, "completion": _roles([("assistant", pair.rejected)])},
            {"rank": 0, "completion": _roles([("assistant", pair.chosen)])},
        ],
    },
    "pandalm": _pandalm,
    "ultrafeedback": lambda pair: {
        "prompt": pair.asked[-1][1],
        "chosen": _roles([pair.asked[-1], ("assistant", pair.chosen)]),
        "rejected": _roles([pair.asked[-1], ("assistant", pair.rejected)]),
    },
    "axolotl": lambda pair: {
        "messages": _roles(pair.asked),
        "chosen": _roles([("assistant", pair.chosen)])[0],
        "rejected": _roles([("assistant", pair.rejected)])[0],
    },
    "cai": lambda pair: {
        "prompt": pair.asked[-1][1],
        "conversation": _roles(pair.asked),
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "p_chosen": 0.9,
    },
    "pairs": lambda pair: {"prompt": _roles(pair.asked), "chosen": pair.chosen, "rejected": pair.rejected},
}
"""Format -> a pair as a row of it."""


def write(path: Path, format: str, pairs: Iterable[Plain]) -> Path:
    """The pairs as JSONL of that format."""
    return write_rows(path, map(FORMATS[format], pairs))


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path
