"""The file formats of preference pairs of different projects: how to recognise one, and how to read a pair from a row.

A format is recognised by the columns of a row and by the kinds of values in them. Reading a row raises ValueError with
what is wrong with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from cai.core.types import Message, Role
from cai.data.messages import find_role, message_dicts, parse_messages, parse_text

Row = Mapping[str, object]
Turns = tuple[Message, ...]
Parts = tuple[object, object, object]
"""Prompt, chosen and rejected as the row holds them; the prompt is None where it is inside the two sides."""


class BadLabel(ValueError):
    """A row whose `p_chosen` is not a probability, or whose `weight` is not a weight."""


@dataclass(frozen=True, slots=True)
class Sides:
    """A row's pair as the row holds it; `p_chosen` where it follows from the row's votes."""

    row: Row
    prompt: Turns | None
    chosen: str | Turns
    rejected: str | Turns
    p_chosen: float | None = None

    def split_prompt(self) -> tuple[Turns, Turns, Turns]:
        """The prompt, and the turns of each side after it."""
        if isinstance(self.chosen, str) and isinstance(self.rejected, str):
            return _split_texts(self.prompt, self.chosen, self.rejected)
        if isinstance(self.chosen, str) or isinstance(self.rejected, str):
            raise ValueError("has text on one side and a list of turns on the other")
        return _split_turns(self.prompt, self.chosen, self.rejected)


@dataclass(frozen=True, slots=True)
class PairFormat:
    """One way in which a row holds a pair."""

    about: str
    fits: Callable[[Row], bool]
    parts: Callable[[Row], Parts]
    prompted: bool = True
    """Whether the prompt has a column of its own."""
    votes: bool = False
    """Whether the row has several people's votes, which decide which answer is the better one."""

    def sides(self, row: object) -> Sides:
        """The pair in a row. Raises ValueError."""
        if not isinstance(row, Mapping):
            raise ValueError(f"is a {type(row).__name__}, not an object")
        parts = self.parts(row)
        for name, part in zip(("prompt", "chosen answer", "rejected answer"), parts, strict=True):
            if part is None and (self.prompted or name != "prompt"):
                raise ValueError(f"has no {name}; it {describe_columns(row)}")
        prompt = _prompt(parts[0]) if self.prompted else None
        first, second = (_side(part, name, self.prompted) for part, name in zip(parts[1:], _SIDES, strict=True))
        p_first = _p_by_votes(row) if self.votes else None
        if p_first is not None and p_first < 0.5:
            return Sides(row, prompt, second, first, 1 - p_first)
        return Sides(row, prompt, first, second, p_first)


_SIDES = ("chosen", "rejected")


def detect_format(values: Iterable[object]) -> str:
    """The name of the format that most of these rows have; empty where none has a known format."""
    listed = [row for row in values if isinstance(row, Mapping)]
    counts = {name: sum(each.fits(row) for row in listed) for name, each in PAIR_FORMATS.items()}
    best = max(counts, key=lambda name: counts[name])  # the first of equals: PAIR_FORMATS goes from special to general
    return best if counts[best] else ""


def describe_columns(row: object) -> str:
    """`has 'a', 'b'`, for an error message."""
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
    except OverflowError:  # an integer beyond the range of a float
        return None
    return found if math.isfinite(found) else None


def probability(row: Row) -> float | None:
    """`p_chosen`, where the row has it. Raises BadLabel."""
    if row.get("p_chosen") is None:
        return None
    value = finite_number(row["p_chosen"])
    if value is None or not 0 <= value <= 1:
        raise BadLabel(f"p_chosen is {row['p_chosen']!r:.40}, not a probability")
    return value


def weight(row: Row) -> float | None:
    """How much a row counts in training, where the row has it. Raises BadLabel."""
    if row.get("weight") is None:
        return None
    value = finite_number(row["weight"])
    if value is None or value < 0:
        raise BadLabel(f"weight is {row['weight']!r:.40}, not a weight")
    return value


_SCORES = (
    ("score_chosen", "score_rejected"),  # HuggingFaceH4's UltraFeedback
    ("chosen_score", "rejected_score"),  # OpenRLHF
    ("chosen_reward", "rejected_reward"),  # NeMo
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),  # Argilla's UltraFeedback
)


def scores(row: Row) -> tuple[float, float] | None:
    """The score of each answer, under any of the column names in use."""
    for chosen, rejected in _SCORES:
        one, other = finite_number(row.get(chosen)), finite_number(row.get(rejected))
        if one is not None and other is not None:
            return one, other
    return None


def first_text(row: Row, *names: str) -> str | None:
    """The first of these columns that holds text or an integer."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return parse_text(value, name)[:200]
    return None


def joined_turns(turns: Turns) -> str:
    """A side as one text: an answer as it is; where it has user turns too, each turn after its role."""
    if all(turn.role == "assistant" for turn in turns):
        return "\n\n".join(turn.content for turn in turns)
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


# --- Turns ------------------------------------------------------------------------------------------------------------

_HUMAN = re.compile(r"(?:\A\s{0,4}|\n\n)(Human|Assistant):")
_EXTRA = re.compile(r"<extra_id_\d>(\w*)\n?")
_NEMO_END = "<extra_id_1>"


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and bool(_HUMAN.match(value))


def _side(value: object, what: str, prompted: bool) -> str | Turns:
    if not isinstance(value, str):
        return parse_messages(value, what)
    text = parse_text(value, what)
    # where there is a prompt, an answer that opens with "Human:" is an answer that plays the user
    return text if prompted or not _is_transcript(text) else _transcript(text)


def _prompt(value: object) -> Turns:
    if not isinstance(value, str):
        return parse_messages(value, "prompt")
    text = parse_text(value, "prompt")
    turns = _transcript(text) if _is_transcript(text) else _nemo(text) if "<extra_id_" in text else ()
    if turns and turns[-1].role == "assistant" and not turns[-1].content:
        turns = turns[:-1]  # the empty turn that the answer follows
    return turns or ((Message("user", text),) if text.strip() else ())


def _transcript(text: str) -> Turns:
    before, *pieces = _HUMAN.split(text)
    start = (Message("system", before.strip()),) if before.strip() else ()
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return start + tuple(
        Message(roles[speaker], said.strip()) for speaker, said in zip(pieces[::2], pieces[1::2], strict=True)
    )


def _nemo(text: str) -> Turns:
    _, *pieces = _EXTRA.split(text)
    turns = [(find_role(name), text.strip()) for name, text in zip(pieces[::2], pieces[1::2], strict=True)]
    return tuple(Message(role, text) for role, text in turns if role and (text or role == "assistant"))


# --- Where the prompt ends --------------------------------------------------------------------------------------------


def _split_texts(prompt: Turns | None, chosen: str, rejected: str) -> tuple[Turns, Turns, Turns]:
    if prompt is None:
        shared = commonprefix([chosen, rejected]) if chosen != rejected else ""  # noqa: RUF071 (by character)
        shared = shared.removesuffix(" ")  # as TRL cuts: the space belongs to the answers
        prompt = (Message("user", shared),) if shared.strip() else ()
        chosen, rejected = chosen[len(shared) :], rejected[len(shared) :]
    return prompt, (Message("assistant", chosen),), (Message("assistant", rejected),)


def _split_turns(prompt: Turns | None, chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns]:
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side or side[-1].role != "assistant":
            raise ValueError(f"{name} does not end in an answer")
    if prompt is None or (chosen[0].role != "assistant" and rejected[0].role != "assistant"):
        shared = _shared(chosen, rejected)
        return chosen[:shared], chosen[shared:], rejected[shared:]
    return prompt, chosen, rejected


def _shared(chosen: Turns, rejected: Turns) -> int:
    """How many turns at the start both sides share, up to and including a user turn."""
    most = min(len(chosen), len(rejected)) - 1  # the last turn is an answer, even if both sides give the same
    shared = next((place for place in range(most) if chosen[place] != rejected[place]), most)
    while shared and chosen[shared - 1].role != "user":
        shared -= 1
    if not shared:
        raise ValueError("chosen and rejected answer different prompts")
    return shared


# --- The formats ------------------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    """`transcript`, `text`, `turn`, `turns`, `none`, or empty for what no pair consists of."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return "transcript" if _is_transcript(value) else "text"
    if isinstance(value, Mapping):
        return "turns" if "messages" in value else "turn" if {"role", "from"} & value.keys() else ""
    listed = isinstance(value, list) and all(isinstance(turn, Mapping) and _kind(turn) == "turn" for turn in value)
    return "turns" if listed else ""


def _by_columns(
    about: str, prompt: str, prompt_kinds: str, answer_kinds: str, *, sides: tuple[str, str] = _SIDES
) -> PairFormat:
    """A pair in three columns, or in two, where `prompt` is empty; the kinds are those of _kind."""

    def fits(row: Row) -> bool:
        kinds = {_kind(row.get(name)) for name in sides}
        return _kind(row.get(prompt)) in prompt_kinds.split() and kinds <= set(answer_kinds.split())

    def parts(row: Row) -> Parts:
        return row.get(prompt), row.get(sides[0]), row.get(sides[1])

    return PairFormat(about, fits, parts, prompted=bool(prompt))


def _instruction(row: Row) -> Turns:
    """Alpaca's prompt: system, earlier rounds, then instruction or question, and input."""
    turns = [Message("system", parse_text(row["system"], "system"))] if row.get("system") else []
    earlier = row.get("history") or []
    if not isinstance(earlier, list) or any(not isinstance(turn, list) or len(turn) != 2 for turn in earlier):
        raise ValueError("history is not a list of [question, answer]")
    for turn in earlier:
        turns += [Message("user", parse_text(turn[0], "history")), Message("assistant", parse_text(turn[1], "history"))]
    asked = [parse_text(row[name], name) for name in ("instruction", "question", "input") if row.get(name)]
    return (*turns, Message("user", "\n\n".join(asked)))


def _by_instruction(chosen: str, rejected: str) -> Callable[[Row], Parts]:
    def parts(row: Row) -> Parts:
        return message_dicts(_instruction(row)), row.get(chosen), row.get(rejected)

    return parts


def _p_by_votes(row: Row) -> float:
    """PandaLM's votes (1 first, 2 second, 0 tie) as P(first is better): the mean vote of a majority, else a tie."""
    votes: list[Any] = [row[name] for name in ("annotator1", "annotator2", "annotator3") if name in row]
    if not votes or any(vote not in (0, 1, 2) for vote in votes):
        raise ValueError(f"has the votes {votes!r:.60}, which are not 0, 1 or 2")
    if max(votes.count(1), votes.count(2)) * 2 <= len(votes):
        return 0.5
    return sum({0: 0.5, 1: 1.0, 2: 0.0}[vote] for vote in votes) / len(votes)


def _ranked(row: Row) -> Parts:
    """NeMo RL's completions, best rank first."""
    listed = row.get("completions")
    if not isinstance(listed, list) or len(listed) != 2:
        raise ValueError(f"has no two completions; it {describe_columns(row)}")
    if any(not isinstance(one, Mapping) or finite_number(one.get("rank")) is None for one in listed):
        raise ValueError("has a completion without a rank")
    if listed[0]["rank"] == listed[1]["rank"]:
        raise ValueError("has two completions of the same rank")
    best, worst = sorted(listed, key=lambda one: float(one["rank"]))
    return row.get("context"), best.get("completion"), worst.get("completion")


def _without_end(row: Row) -> Parts:
    """NeMo's answers end in the token that begins the next turn."""

    def text(value: object) -> object:
        ended = isinstance(value, str) and value.rstrip().endswith(_NEMO_END)
        return str(value).rstrip().removesuffix(_NEMO_END).removesuffix("\n") if ended else value

    return row.get("prompt"), text(row.get("chosen_response")), text(row.get("rejected_response"))


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: set(names) <= row.keys()


_TEXT, _LISTS = "text transcript", "turns turn"
_PROMPTS = ("prompt", "messages", "conversations", "conversation", "instruction", "question", "context")
_V1 = ("chosen_messages", "rejected_messages")
PAIR_FORMATS: Mapping[str, PairFormat] = {
    "hh-rlhf": _by_columns("two transcripts of Human: and Assistant:", "", "none", "transcript"),
    "llamafactory-v1": _by_columns("LLaMA-Factory's two lists of content parts", "", "none", _LISTS, sides=_V1),
    "nemo": PairFormat("NeMo-Aligner's two responses", _has("chosen_response", "rejected_response"), _without_end),
    "nemo-rl": PairFormat("NeMo RL's context and two ranked completions", _has("context", "completions"), _ranked),
    "pandalm": PairFormat(
        "PandaLM's two responses and three votes",
        _has("response1", "response2", "annotator1"),
        _by_instruction("response1", "response2"),
        votes=True,
    ),
    "alpaca": PairFormat(
        "LLaMA-Factory's instruction beside two answers", _has("instruction", *_SIDES), _by_instruction(*_SIDES)
    ),
    "orca": PairFormat(
        "Orca's system and question beside two answers", _has("question", *_SIDES), _by_instruction(*_SIDES)
    ),
    "sharegpt": _by_columns(
        "LLaMA-Factory's conversations of from and value", "conversations", "turns", f"{_LISTS} text"
    ),
    "cai": _by_columns("cai's jsonl export", "conversation", "turns", _TEXT),
    "pairs": _by_columns("a message list beside two answers as text", "prompt", "turns", _TEXT),
    "trl": _by_columns("three message lists: TRL, OpenRLHF, XTuner", "prompt", "turns", _LISTS),
    "ultrafeedback": _by_columns("a prompt as text beside two message lists", "prompt", _TEXT, _LISTS),
    "axolotl": _by_columns("messages beside two answers", "messages", "turns", f"{_LISTS} text"),
    "trl-text": _by_columns("prompt and two answers as text: TRL, OpenRLHF", "prompt", _TEXT, _TEXT),
    "trl-implicit": PairFormat(
        "two lists or texts that hold the prompt: TRL, torchtune",
        lambda row: not any(map(row.get, _PROMPTS)) and {_kind(row.get(side)) for side in _SIDES} <= {"turns", "text"},
        lambda row: (None, row.get("chosen"), row.get("rejected")),
        prompted=False,
    ),
}
"""Name of a format -> how it holds a pair, from special to general."""
