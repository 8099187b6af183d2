"""Takes an answer out of what is around the whole of it: a code fence, a JSON object, a tag, quotes, rules.

Each function returns the text unchanged where nothing is around it, and takes linear time.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable

_PROSE = frozenset(("", "markdown", "md", "text", "txt", "plaintext", "plain", "answer", "response", "output"))
"""What a fence says of its content where that is no code."""
_CODE = re.compile(
    r"[;{}]\s*$|^\s*(?:def|class|import|from|return|for|if|elif|else|while|var|let|const|#include|SELECT|</?\w+"
    r"|<!)\b.*[:>;)]?$"
    r"|^\s{4,}\S|\w\(.*\)$|[^=]=[^=]|^/\S+$"
)
_TAG = r"(?:(?:final|revised|rewritten|new|updated|improved|edited|corrected|your|the)[ _-]?)*"
_NAME = (
    rf"{_TAG}(?:answer|response|reply|revision|rewrite|output|result|text|version|revised|rewritten|message|antwort"
    r"|réponse|respuesta|回答)"
)
_OPENING = re.compile(rf"<({_NAME})(?: [^<>\n]{{0,60}})?>\s*", re.IGNORECASE)
_CLOSING = re.compile(rf"\s?</({_NAME})(?: [^<>\n]{{0,60}})?>?\Z", re.IGNORECASE)
_ANY = re.compile(r"<([a-zA-Z][\w-]{0,30})>\s*")
_KEY = re.compile(rf"{_NAME}|content", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“", "「": "」", "『": "』", "‘": "’", "'": "'", "(": ")", "[": "]"}
_RULES = frozenset(("---", "***", "___", "* * *", "- - -", "—", "———", "-----", "====", "===", "##", "#", "**"))
_FENCES = ("```", "~~~")
_JSON_FENCE = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)
_EMPHASIS = re.compile(r"\*\*\*|\*\*|~~|\*(?=\S)|__|_(?=\w)")
_SENTENCE = 8
"""Words from which a text in brackets or emphasis is an answer and not an aside."""
_JSON_MOST = 200_000


def without_fence(text: str) -> str:
    """What a code fence around all of a prose answer holds; a fence that only opens or only closes goes too."""
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith(_FENCES)]
    if not fences or not prose(text):
        return text
    language = lines[fences[0]].strip().strip("`~").strip().lower()
    whole = fences[0] == 0 and fences[-1] == len(lines) - 1 and lines[-1].strip() in _FENCES
    if whole and language in _PROSE and (len(fences) == 2 or (language and len(fences) % 2 == 0)):
        return "\n".join(lines[1:-1]).strip()
    if len(fences) == 1 and fences[0] == 0 and language in _PROSE:
        return "\n".join(lines[1:]).strip()
    if len(fences) == 1 and fences[0] == len(lines) - 1 and lines[-1].strip() in _FENCES:
        return "\n".join(lines[:-1]).strip()
    return text


def prose(text: str) -> bool:
    """Whether the lines between a text's fences are sentences and not code."""
    lines = [line for line in text[:4000].split("\n") if line.strip() and not line.lstrip().startswith(_FENCES)]
    code = sum(bool(_CODE.search(line[:200])) for line in lines)
    return code <= len(lines) / 5 and sum(len(line.split()) for line in lines) > 3


def without_json(text: str) -> str:
    """The answer that a JSON object holds."""
    if text.startswith("```") and (fenced := _JSON_FENCE.fullmatch(text)):
        inner = without_json(fenced[1])
        return text if inner == fenced[1] else inner
    if not (text.startswith("{") and text.endswith("}")) or len(text) > _JSON_MOST:
        return text
    try:
        found = json.loads(text, strict=False) if text[1:].lstrip().startswith('"') else ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    if not isinstance(found, dict):
        return text
    while len(found) == 1 and isinstance(inner := next(iter(found.values())), dict):
        found = inner
    texts = {str(key): value.strip() for key, value in found.items() if isinstance(value, str) and value.strip()}
    named = {key: value for key, value in texts.items() if _KEY.fullmatch(key)}
    held = [value for key, value in named.items() if re.match("revis|rewr|final|new", key)] or list(named.values())
    return held[0] if len(held) == 1 else text


def without_tag(text: str) -> str:
    """What a tag around the answer holds: `<answer>`, `<revised_answer>`; one that only opens or closes goes too."""
    if (opened := _ANY.match(text)) and text.endswith(f"</{opened[1]}>") and text.count(f"<{opened[1]}") == 1:
        return text[opened.end() : -len(opened[1]) - 3].strip()
    if opened:  # `<critique>...</critique><revision>...</revision>`
        opening = _OPENING.search(text)
        closed = text.find(f"</{opening[1]}", opening.end()) if opening else -1
        if opening and closed >= 0:
            return text[opening.end() : closed].strip()
    opening = _OPENING.match(text)
    closing = _CLOSING.search(text, max(0, len(text) - 120))
    return text[opening.end() if opening else 0 : closing.start() if closing else len(text)].strip()


def without_quotes(text: str) -> str:
    """What quotes around the whole answer hold."""
    if text.startswith('"""') and text.endswith('"""') and len(text) > 6:
        return text[3:-3].strip()
    if len(text) < 3 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inner, quote = text[1:-1], text[0]
    if quote == "'":
        return text if "' " in inner or " '" in inner else inner.strip()
    if quote in "([" and len(re.findall(r"[^\W\d]+", inner)) < _SENTENCE:
        return text  # `[0.5, 1.5]`, `(laughs)`
    if quote != text[-1]:
        return inner.strip() if _nested(inner, quote, text[-1]) else text
    # of `"One" and "two"` the first quote inside closes; of `"He said "one" again."` it opens
    first, last = inner.find(quote), inner.rfind(quote)
    opens = first < 0 or (first > 0 and inner[first - 1].isspace() and not inner[last + 1 : last + 2].isalnum())
    return inner.strip() if opens and last < len(inner) - 1 else text


def _nested(inner: str, opening: str, closing: str) -> bool:
    """Whether each quote inside is closed inside."""
    depth = 0
    for found in re.finditer(f"[{re.escape(opening)}{re.escape(closing)}]", inner):
        depth += 1 if found[0] == opening else -1
        if depth < 0:
            return False
    return depth == 0


def without_rules(text: str) -> str:
    """`text` without horizontal rules and empty marks on lines of their own at its start and end."""
    start, end = 0, len(text)
    while (line := text.find("\n", start, end)) >= 0 and _empty(text[start:line]):
        start = line + 1
    while (line := text.rfind("\n", start, end)) >= 0 and _empty(text[line:end]):
        end = line
    return text[start:end].strip()


def without_marks(text: str) -> str:
    """`text` without emphasis, quotation marks of lines, or a box, where that holds all of it."""
    found = _EMPHASIS.match(text)
    inner = text[found.end() : -found.end()] if found and text.endswith(found[0]) else ""
    if found and found[0] not in inner and len(inner.split()) >= _SENTENCE:
        return inner.strip()
    if text.startswith("\\boxed{") and text.endswith("}"):
        return text[7:-1].strip()
    lines = text.split("\n")
    if text.startswith(">") and all(line.startswith(">") or not line for line in lines):
        return "\n".join(line[1:].removeprefix(" ") for line in lines).strip()
    return text


def _empty(line: str) -> bool:
    return not line.strip() or line.strip() in _RULES


WRAPPERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("fence", without_fence),
    ("object", without_json),
    ("tag", without_tag),
    ("quotes", without_quotes),
    ("rules", without_rules),
    ("marks", without_marks),
)
