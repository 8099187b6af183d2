"""How the files of different projects hold a preference pair, and how one is taken out of a row.

A shape says by which columns, and by what is in them, its rows are known. Reading a row raises ValueError with what is
wrong with it. Roles of other names are mapped: what a tool returned counts as the user's turn, a call as the model's.

Left out on purpose: images and other parts of a message that are not text; such a row cannot be read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from cai.core.types import Message, Role

Row = Mapping[str, Any]
Turns = tuple[Message, ...]
Parts = tuple[object, object, object]
"""Prompt, chosen and rejected as the row holds them; the prompt is None where it is inside the two sides."""

_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "tool", "observation", "function", "ipython"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "function_call"), "assistant"),
}


@dataclass(frozen=True, slots=True)
class Sides:
    """A row's pair, in whatever way it holds it; `p_chosen` where the row's votes give it."""

    row: Row
    prompt: Turns | None
    chosen: str | Turns
    rejected: str | Turns
    p_chosen: float | None = None

    def parted(self) -> tuple[Turns, Turns, Turns]:
        """The prompt, and what each side adds to it."""
        if isinstance(self.chosen, str) and isinstance(self.rejected, str):
            return _parted_texts(self.prompt, self.chosen, self.rejected)
        if isinstance(self.chosen, str) or isinstance(self.rejected, str):
            raise ValueError("has text on one side and a list of turns on the other")
        return _parted_turns(self.prompt, self.chosen, self.rejected)


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to hold a pair."""

    about: str
    fits: Callable[[Row], bool]
    parts: Callable[[Row], Parts]
    prompted: bool = True
    """Whether the prompt has a column of its own."""
    votes: bool = False
    """Whether several people voted, and which answer is the better one follows from that."""

    def sides(self, row: object) -> Sides:
        """The pair in a row. Raises ValueError."""
        if not isinstance(row, Mapping):
            raise ValueError(f"is a {type(row).__name__}, not an object")
        parts = self.parts(row)
        for name, part in zip(("prompt", "chosen answer", "rejected answer"), parts, strict=True):
            if part is None and (self.prompted or name != "prompt"):
                raise ValueError(f"has no {name}; it {columns(row)}")
        prompt = _prompt(parts[0]) if self.prompted else None
        first, second = (_side(part, name, self.prompted) for part, name in zip(parts[1:], _SIDES, strict=True))
        p_first = _p_by_votes(row) if self.votes else None
        if p_first is not None and p_first < 0.5:
            return Sides(row, prompt, second, first, 1 - p_first)
        return Sides(row, prompt, first, second, p_first)


_SIDES = ("chosen", "rejected")


def told(values: Iterable[object]) -> str:
    """The name of the shape that most of these rows have; empty where none has any."""
    listed = [row for row in values if isinstance(row, Mapping)]
    counts = {name: sum(shape.fits(row) for row in listed) for name, shape in SHAPES.items()}
    best = max(counts, key=lambda name: counts[name])  # of several the first: SHAPES goes from special to general
    return best if counts[best] else ""


def columns(row: object) -> str:
    """`has 'a', 'b'`, for a message."""
    if not isinstance(row, Mapping):
        return f"is a {type(row).__name__}"
    return "has " + (", ".join(f"{str(name)[:40]!r}" for name in list(row)[:8]) or "no columns")


# --- Single values ----------------------------------------------------------------------------------------------------


def finite_number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number of more digits than a float holds
        return None
    return found if math.isfinite(found) else None


def probability(row: Row) -> float | None:
    """`p_chosen`, where the row has it. Raises ValueError for what is no probability."""
    if row.get("p_chosen") is None:
        return None
    value = finite_number(row["p_chosen"])
    if value is None or not 0 <= value <= 1:
        raise ValueError(f"p_chosen is {row['p_chosen']!r:.40}, not a probability")
    return value


def weight(row: Row) -> float | None:
    """How much a row counts in training, where it says. Raises ValueError for what is no weight."""
    if row.get("weight") is None:
        return None
    value = finite_number(row["weight"])
    if value is None or value < 0:
        raise ValueError(f"weight is {row['weight']!r:.40}, not a weight")
    return value


_SCORES = (
    ("score_chosen", "score_rejected"),  # HuggingFaceH4's UltraFeedback
    ("chosen_score", "rejected_score"),  # OpenRLHF
    ("chosen_reward", "rejected_reward"),  # NeMo
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),  # Argilla's UltraFeedback
)


def scores(row: Row) -> tuple[float, float] | None:
    """What each answer was given, by any of the names that are in use."""
    for chosen, rejected in _SCORES:
        one, other = finite_number(row.get(chosen)), finite_number(row.get(rejected))
        if one is not None and other is not None:
            return one, other
    return None


def first_text(row: Row, *names: str) -> str | None:
    """The first of these columns that holds a word or a whole number."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return _text(value, name)[:200]
    return None


def joined_turns(turns: Turns) -> str:
    """What a side says: an answer as it is; where users speak too, every turn after its role."""
    if all(turn.role == "assistant" for turn in turns):
        return "\n\n".join(turn.content for turn in turns)
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is a {type(value).__name__}, not text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{what} is not valid Unicode")
    return value


# --- Turns ------------------------------------------------------------------------------------------------------------

_HUMAN = re.compile(r"(?:\A\s{0,4}|\n\n)(Human|Assistant):")
_EXTRA = re.compile(r"<extra_id_\d>(\w*)\n?")
_NEMO_END = "<extra_id_1>"


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and bool(_HUMAN.match(value))


def _side(value: object, what: str, prompted: bool) -> str | Turns:
    if not isinstance(value, str):
        return _turns(value, what)
    text = _text(value, what)
    # beside a prompt, an answer that opens with "Human:" is an answer that plays the user
    return text if prompted or not _is_transcript(text) else _transcript(text)


def _prompt(value: object) -> Turns:
    if not isinstance(value, str):
        return _turns(value, "prompt")
    text = _text(value, "prompt")
    turns = _transcript(text) if _is_transcript(text) else _nemo(text) if "<extra_id_" in text else ()
    if turns and turns[-1].role == "assistant" and not turns[-1].content:
        turns = turns[:-1]  # the head under which the answer is to follow
    return turns or ((Message("user", text),) if text.strip() else ())


def _turns(value: object, what: str) -> Turns:
    if isinstance(value, Mapping):
        value = value.get("messages", [value])
    if not isinstance(value, list):
        raise ValueError(f"{what} is a {type(value).__name__}, not text or a list of turns")
    return tuple(_turn(turn, f"turn {number} of {what}") for number, turn in enumerate(value, 1))


def _turn(turn: object, what: str) -> Message:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{what} is a {type(turn).__name__}, not an object")
    role = _ROLES.get(str(turn.get("role", turn.get("from"))).lower())
    if role is None:
        raise ValueError(f"{what} has no role that is known")
    return Message(role, _content(turn.get("content", turn.get("value")), what))


def _content(value: object, what: str) -> str:
    if not isinstance(value, list):
        return _text(value, what)
    texts = [part.get("text", part.get("value")) if isinstance(part, Mapping) else part for part in value]
    return "".join(_text(text, f"a part of {what}") for text in texts)


def _transcript(text: str) -> Turns:
    before, *pieces = _HUMAN.split(text)
    start = (Message("system", before.strip()),) if before.strip() else ()
    speakers: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return start + tuple(
        Message(speakers[who], said.strip()) for who, said in zip(pieces[::2], pieces[1::2], strict=True)
    )


def _nemo(text: str) -> Turns:
    _, *pieces = _EXTRA.split(text)
    turns = [(who.lower(), said.strip()) for who, said in zip(pieces[::2], pieces[1::2], strict=True)]
    return tuple(Message(_ROLES[who], said) for who, said in turns if who in _ROLES and (said or who == "assistant"))


# --- Where the prompt ends --------------------------------------------------------------------------------------------


def _parted_texts(prompt: Turns | None, chosen: str, rejected: str) -> tuple[Turns, Turns, Turns]:
    if prompt is None:
        shared = commonprefix([chosen, rejected]) if chosen != rejected else ""  # noqa: RUF071 (by character)
        shared = shared.removesuffix(" ")  # as TRL cuts: the blank belongs to the answers
        prompt = (Message("user", shared),) if shared.strip() else ()
        chosen, rejected = chosen[len(shared) :], rejected[len(shared) :]
    return prompt, (Message("assistant", chosen),), (Message("assistant", rejected),)


def _parted_turns(prompt: Turns | None, chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns]:
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side or side[-1].role != "assistant":
            raise ValueError(f"{name} does not end in an answer")
    if prompt is None or (chosen[0].role != "assistant" and rejected[0].role != "assistant"):
        shared = _shared(chosen, rejected)
        return chosen[:shared], chosen[shared:], rejected[shared:]
    return prompt, chosen, rejected


def _shared(chosen: Turns, rejected: Turns) -> int:
    """How many turns from the start are one conversation that ends in a user turn."""
    most = min(len(chosen), len(rejected)) - 1  # the last turn is an answer, even if both sides give the same
    shared = next((place for place in range(most) if chosen[place] != rejected[place]), most)
    while shared and chosen[shared - 1].role != "user":
        shared -= 1
    if not shared:
        raise ValueError("chosen and rejected answer different prompts")
    return shared


# --- The shapes -------------------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    """`transcript`, `text`, `turn`, `turns`, `none`, or empty for what a pair is not made of."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return "transcript" if _is_transcript(value) else "text"
    if isinstance(value, Mapping):
        return "turns" if "messages" in value else "turn" if {"role", "from"} & value.keys() else ""
    listed = isinstance(value, list) and all(isinstance(turn, Mapping) and _kind(turn) == "turn" for turn in value)
    return "turns" if listed else ""


def _shape(about: str, prompt: str, asked: str, answers: str, *, sides: tuple[str, str] = _SIDES) -> Shape:
    """A pair in three columns, or in two, then with an empty name for the prompt's; kinds of prompt and of answers."""

    def fits(row: Row) -> bool:
        kinds = {_kind(row.get(name)) for name in sides}
        return _kind(row.get(prompt)) in asked.split() and kinds <= set(answers.split())

    def parts(row: Row) -> Parts:
        return row.get(prompt), row.get(sides[0]), row.get(sides[1])

    return Shape(about, fits, parts, prompted=bool(prompt))


def _instruction(row: Row) -> Turns:
    """Alpaca's prompt: system, earlier rounds, then instruction or question, and input."""
    turns = [Message("system", _text(row["system"], "system"))] if row.get("system") else []
    earlier = row.get("history") or []
    if not isinstance(earlier, list) or any(not isinstance(turn, list) or len(turn) != 2 for turn in earlier):
        raise ValueError("history is not a list of [question, answer]")
    for turn in earlier:
        turns += [Message("user", _text(turn[0], "history")), Message("assistant", _text(turn[1], "history"))]
    asked = [_text(row[name], name) for name in ("instruction", "question", "input") if row.get(name)]
    return (*turns, Message("user", "\n\n".join(asked)))


def _instructed(chosen: str, rejected: str) -> Callable[[Row], Parts]:
    def parts(row: Row) -> Parts:
        listed = [{"role": turn.role, "content": turn.content} for turn in _instruction(row)]
        return listed, row.get(chosen), row.get(rejected)

    return parts


def _p_by_votes(row: Row) -> float:
    """PandaLM's votes (1 first, 2 second, 0 tie) as P(first is better): the mean vote of a majority, else a tie."""
    votes = [row[name] for name in ("annotator1", "annotator2", "annotator3") if name in row]
    if not votes or any(vote not in (0, 1, 2) for vote in votes):
        raise ValueError(f"has the votes {votes!r:.60}, which are not 0, 1 or 2")
    if max(votes.count(1), votes.count(2)) * 2 <= len(votes):
        return 0.5
    return sum({0: 0.5, 1: 1.0, 2: 0.0}[vote] for vote in votes) / len(votes)


def _ranked(row: Row) -> Parts:
    """NeMo RL's completions, best rank first."""
    listed = row.get("completions")
    if not isinstance(listed, list) or len(listed) != 2:
        raise ValueError(f"has no two completions; it {columns(row)}")
    if any(not isinstance(one, Mapping) or finite_number(one.get("rank")) is None for one in listed):
        raise ValueError("has a completion without a rank")
    if listed[0]["rank"] == listed[1]["rank"]:
        raise ValueError("has two completions of the same rank")
    best, worst = sorted(listed, key=lambda one: float(one["rank"]))
    return row.get("context"), best.get("completion"), worst.get("completion")


def _without_end(row: Row) -> Parts:
    """NeMo's answers end in the token under which the next turn would begin."""

    def text(value: object) -> object:
        ended = isinstance(value, str) and value.rstrip().endswith(_NEMO_END)
        return str(value).rstrip().removesuffix(_NEMO_END).removesuffix("\n") if ended else value

    return row.get("prompt"), text(row.get("chosen_response")), text(row.get("rejected_response"))


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: set(names) <= row.keys()


_TEXT, _LISTS = "text transcript", "turns turn"
_PROMPTS = ("prompt", "messages", "conversations", "conversation", "instruction", "question", "context")
_V1 = ("chosen_messages", "rejected_messages")
SHAPES: Mapping[str, Shape] = {
    "hh-rlhf": _shape("two transcripts of Human: and Assistant:", "", "none", "transcript"),
    "llamafactory-v1": _shape("LLaMA-Factory's two lists of content parts", "", "none", _LISTS, sides=_V1),
    "nemo": Shape("NeMo-Aligner's two responses", _has("chosen_response", "rejected_response"), _without_end),
    "nemo-rl": Shape("NeMo RL's context and two ranked completions", _has("context", "completions"), _ranked),
    "pandalm": Shape(
        "PandaLM's two responses and three votes",
        _has("response1", "response2", "annotator1"),
        _instructed("response1", "response2"),
        votes=True,
    ),
    "alpaca": Shape(
        "LLaMA-Factory's instruction beside two answers", _has("instruction", *_SIDES), _instructed(*_SIDES)
    ),
    "orca": Shape("Orca's system and question beside two answers", _has("question", *_SIDES), _instructed(*_SIDES)),
    "sharegpt": _shape("LLaMA-Factory's conversations of from and value", "conversations", "turns", f"{_LISTS} text"),
    "cai": _shape("cai's jsonl export", "conversation", "turns", _TEXT),
    "pairs": _shape("a message list beside two answers as text", "prompt", "turns", _TEXT),
    "trl": _shape("three message lists: TRL, OpenRLHF, XTuner", "prompt", "turns", _LISTS),
    "ultrafeedback": _shape("a prompt as text beside two message lists", "prompt", _TEXT, _LISTS),
    "axolotl": _shape("messages beside two answers", "messages", "turns", f"{_LISTS} text"),
    "trl-text": _shape("prompt and two answers as text: TRL, OpenRLHF", "prompt", _TEXT, _TEXT),
    "trl-implicit": Shape(
        "two lists or texts that hold the prompt: TRL, torchtune",
        lambda row: not any(map(row.get, _PROMPTS)) and {_kind(row.get(side)) for side in _SIDES} <= {"turns", "text"},
        lambda row: (None, row.get("chosen"), row.get("rejected")),
        prompted=False,
    ),
}
"""Name of a format -> how it holds a pair; from special to general."""
