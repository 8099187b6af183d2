"""Gates: what must not pass from one step to the next unseen. Each looks, names what it saw, and nothing more.

What happens then (drop, tag, repair) is the recipe's to say. A dropped revision leaves the previous answer in place;
a dropped pair becomes a failure with its reason. Drafts are only ever tagged: a faulty draft is what the method is for.

Left out on purpose: judging quality. A gate tells damage from an answer, not a good answer from a better one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from operator import eq

from rapidfuzz.distance import Indel

from cai.core.language import language, letters
from cai.core.refusals import refuses
from cai.core.types import Action, Finish, GateHit, Prompt
from cai.runs.recipe import Gates

SEEN = 20_000
"""Characters of an answer that the pattern gates look at."""
HEAD = 400
"""Characters at the start in which a preamble must stand; also what keeps its pattern from backtracking for hours."""
NEAR = 0.97
"""Word similarity (Indel, 0 to 1) from which two answers count as the same."""


@dataclass(frozen=True, slots=True)
class Look:
    """A text and what it came from: `before` is the answer that it would replace (for a draft, the last user turn)."""

    before: str
    after: str
    finish: Finish
    prompt: Prompt


def gate_draft(text: str, finish: Finish, prompt: Prompt, gates: Gates) -> tuple[GateHit, ...]:
    """What is noticed about a draft; tags only."""
    look = Look(prompt.messages[-1].content, text, finish, prompt)
    return tuple(
        GateHit(name, "tag", saw) for name in _DRAFT if getattr(gates, name) is not None and (saw := _LOOKS[name](look))
    )


def gate_revision(
    text: str, before: str, finish: Finish, prompt: Prompt, gates: Gates
) -> tuple[str | None, tuple[GateHit, ...]]:
    """The revision as it may pass (repaired, or None when dropped), and what was noticed."""
    hits: list[GateHit] = []
    if gates.preamble == "repair":
        text, removed = repaired(text)
        hits += [GateHit("preamble", "repair", removed)] if removed else []
    look = Look(before, text, finish, prompt)
    for name in _REVISION:
        action: Action | None = getattr(gates, name)
        if action in ("drop", "tag") and (saw := _LOOKS[name](look)):
            hits.append(GateHit(name, action, saw))
    dropped = any(hit.action == "drop" for hit in hits)
    return None if dropped else text, tuple(hits)


def gate_pair(chosen: str, rejected: str, prompt: Prompt, gates: Gates) -> tuple[GateHit, ...]:
    """What is noticed about a pair; the caller drops it if any hit says so."""
    a, b = chosen.split(), rejected.split()
    saws = {
        "near_identical": lambda: _near(b[:SEEN], a[:SEEN]),
        "truncated_equal": lambda: _truncated_equal(a, b, prompt, gates.max_length),
        "length_ratio": lambda: _ratio(len(a), len(b), gates.max_ratio),
    }
    actions: dict[str, Action | None] = {name: getattr(gates, name) for name in saws}
    return tuple(GateHit(name, action, saw) for name, action in actions.items() if action and (saw := saws[name]()))


_OPENERS = r"(?:(?:sure|certainly|of course|absolutely|okay|ok|great|no problem|thank you)\b[^\n.!:]{0,40}[!.,:]\s*)?"
_PREAMBLE = re.compile(
    rf"(?:{_OPENERS}(?:here(?:['’]s| is| are)|below is|this is|i(?:['’]ve| have))\b[^\n:]{{0,80}}?"
    r"\b(?:revis\w+|rewrit\w+|rewrote|updated|improved|concise|shorter|brief\w*|edited|simplified|condensed|corrected)\b"
    r"[^\n:]{0,160}:\s*"
    r"|\**(?:the )?(?:revised|rewritten|final|improved|concise|new|updated|shortened)?\s*"
    r"(?:response|answer|revision|version|text|rewrite)\**\s*:\**\s*)",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "«": "»"}


def repaired(text: str) -> tuple[str, str]:
    """`text` without an announcing first line and the quotes it announced; and what was removed, empty if nothing."""
    start = text.lstrip()
    found = _PREAMBLE.match(start[:HEAD])
    if not found or not start[found.end() :].strip():
        return text, ""
    rest = start[found.end() :].strip()
    if len(rest) > 1 and _QUOTES.get(rest[0]) == rest[-1] and rest[0] not in rest[1:-1]:
        rest = rest[1:-1].strip()
    return rest, found[0].strip()


def _preamble(look: Look) -> str | None:
    return repaired(look.after)[1] or None


_NOTHING = re.compile(
    r"\W*(?:(?:there (?:is|are) )?no (?:further |more )?(?:revisions?|changes?|edits?|corrections?|rewrite)"
    r"(?: (?:is|are|was|were))?(?: (?:needed|necessary|required|made))?"
    r"|nothing (?:needs )?to (?:be )?(?:fix|change|revis|correct)\w*|n/?a|none(?: needed)?"
    r"|(?:the|this) (?:response|answer|text) (?:is|seems|looks) (?:already )?(?:fine|good|ok|okay|appropriate|clear)"
    r"(?: as (?:it )?is)?)\W*",
    re.IGNORECASE,
)

_SENTENCE = re.compile(r"(?<=[.!])\s")


def _no_revision(look: Look) -> str | None:
    if len(look.after) >= 400:
        return None
    first = look.after.strip().split("\n", 1)[0][:200]
    if not _NOTHING.match(first):  # then not its first sentence either
        return None
    # the sentence alone, or at the head of little else: "No revisions needed." and then an explanation
    head = _SENTENCE.split(first, 1)[0]
    return first if _NOTHING.fullmatch(head) and not _NOTHING.fullmatch(look.before) else None


def _unchanged(look: Look) -> str | None:
    return "the revision equals the answer" if _alike(look.after, look.before) else None


def _truncated(look: Look) -> str | None:
    return {"length": "cut at max_tokens", "filter": "cut by a content filter"}.get(look.finish)


def _refusal(look: Look) -> str | None:
    return refuses(look.after)


_SIGNS = r"([^\s\w=\-_.*#~|+/\\])(?:\s?\1){9,}"
_SIGN_RUN = re.compile(_SIGNS)
_RUN = re.compile(_SIGNS + r"|(\S{1,40})(?:\s\2){7,}")


def _repetition(look: Look) -> str | None:
    text = look.after[-SEEN:]
    words = text.split()
    # without six equal words in a row no word runs on, and only signs are looked for: a tenth of the time
    six = b"\1" * 5 in bytes(map(eq, words, islice(words, 1, None)))
    if (six or _signs(text)) and (found := (_RUN if six else _SIGN_RUN).search(text)):
        return f"{found[0][:40]!r} over and over"
    most = 0.4 * (len(words) - 3)
    if len(words) < 40 or len(words) - len(set(words)) <= most:  # four words in a row repeat no oftener than one
        return None
    grams = Counter(zip(*(islice(words, start, None) for start in range(4)), strict=False))
    if sum(count - 1 for count in grams.values()) <= most:
        return None
    gram, count = grams.most_common(1)[0]
    return f"{' '.join(gram)!r} {count} times"


_NO_SIGNS = bytes(code for code in range(128) if chr(code).isalnum() or chr(code) in " \t\n\v\f\r=-_.*#~|+/\\")


def _signs(text: str) -> bool:
    """Whether `text` has as many signs as a run of them takes."""
    return not text.isascii() or len(text.encode().translate(None, _NO_SIGNS)) >= 10


_META = re.compile(
    r"\b(?:the|this|your|my|above) (?:critique|criticism|constitution(?:al)? principle|feedback (?:above|given))\b"
    r"|\b(?:the|my|this) (?:original|previous|preceding|revised|rewritten) (?:response|answer|version|text|draft)\b"
    r"|\bi(?:['’]ve| have)? (?:revised|rewritten|rewrote|rephrased) (?:the|my|this)\b"
    r"|^[^\w\n]{0,4}(?:note|changes(?: made)?|explanation)[^\w\n]{0,4}:.{0,60}\b(?:revis|rewr|chang|remov|shorten)\w+",
    re.IGNORECASE | re.MULTILINE,
)

_META_HINTS = frozenset({
    "critique", "criticism", "principle", "feedback", "original", "previous", "preceding", "revised", "rewritten",
    "rewrote", "rephrased", "note", "changes", "explanation",
})  # fmt: skip
"""Words without one of which nothing above matches; looking for them first takes a third of the time."""


def _meta(look: Look) -> str | None:
    if _META_HINTS.isdisjoint(letters(look.after[:SEEN])):
        return None
    # words that the conversation itself uses are its subject (an essay on the Constitution), not talk about the task
    known = " ".join(message.content for message in look.prompt.messages) + " " + look.before
    for found in _META.finditer(look.after[:SEEN]):
        if found[0].lower() not in known.lower():
            return found[0].strip()
    return None


_ROLE = re.compile(r"^\W{0,3}(?:human|user|assistant|question|critique|revision|verdict)\s?:", re.I | re.M)


def _roles(look: Look) -> str | None:
    if ":" in look.after and (found := _ROLE.search(look.after[:SEEN])):
        return None if _ROLE.search(look.before) else f"speaks as {found[0].strip()!r}"
    return None


def _language(look: Look) -> str | None:
    after = language(look.after)
    before = language(look.before) if after else None
    return f"from {before} to {after}" if before and before != after else None


_LOOKS: dict[str, Callable[[Look], str | None]] = {
    "no_revision": _no_revision,
    "unchanged": _unchanged,
    "truncated": _truncated,
    "refusal": _refusal,
    "repetition": _repetition,
    "preamble": _preamble,
    "meta": _meta,
    "roles": _roles,
    "language": _language,
}
_DRAFT = ("truncated", "refusal", "repetition", "roles")
_REVISION = tuple(_LOOKS)


def _near(a: list[str], b: list[str]) -> str | None:
    both = len(a) + len(b)
    if not both or 2 * min(len(a), len(b)) / both < NEAR:  # the most that similarity can be at these lengths
        return None
    alike = Indel.normalized_similarity(a, b, score_cutoff=NEAR)
    return f"{alike:.0%} of the words" if alike >= NEAR else None


def _truncated_equal(chosen: list[str], rejected: list[str], prompt: Prompt, max_length: int) -> str | None:
    room = max(0, max_length - sum(len(message.content.split()) for message in prompt.messages))
    if chosen[:room] == rejected[:room]:
        return f"equal in their first {room} words"
    return None


def _alike(a: str, b: str) -> bool:
    """Whether the texts have the same words."""
    few = 4  # these tell most texts apart
    return a.split(None, few)[:few] == b.split(None, few)[:few] and a.split() == b.split()


def _ratio(a: int, b: int, most: float) -> str | None:
    return f"{a} against {b} words" if max(a, b) / max(1, min(a, b)) > most else None


def tallied(hits: Iterable[GateHit], tally: dict[str, Counter[str]]) -> None:
    """Add `hits` to the manifest's gate -> action -> count."""
    for hit in hits:
        tally.setdefault(hit.gate, Counter())[hit.action] += 1
