"""Turn a constitution in another project's format into the text of a cai constitution.

It reads llm-swarm and NeMo-Aligner JSON, lists of critique and revision requests (LangChain), and lists of sentences
such as "Select the response that ..." (Inverse Constitutional AI). A sentence of that kind is kept as `compare`, and
`critique` and `revise` are made from its clause by one fixed rule, which the file says at its top.

Left out on purpose: anything that would have to be invented. A rubric says how bad an answer is and not how to fix it,
worked examples state no rule, and a person has to decide which sentences of a prose document are principles. Each of
these is refused with that reason.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from itertools import accumulate
from pathlib import Path
from textwrap import wrap
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, FoldedScalarString, LiteralScalarString

from cai.core.config import parse_yaml, read_text
from cai.core.errors import Mistake
from cai.core.seeds import digest

WIDTH = 100
Entry = dict[str, Any]
"""A principle or a worked example, as it is written to the file."""


@dataclass(frozen=True, slots=True)
class Import:
    """The content of a file of another project. `notes` say what was invented, changed or left out."""

    principles: list[Entry]
    examples: list[Entry]
    notes: list[str]


def convert(path: str | Path) -> str:
    """The YAML text of a constitution with the principles in `path`. Raises Mistake where there are none."""
    path = Path(path)
    return _yaml(_import(_content(path), str(path)), path.name)


def _content(path: Path) -> Any:
    text = read_text(path)
    if path.suffix in (".yaml", ".yml"):
        return parse_yaml(text, str(path)).data
    if path.suffix != ".json":
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Mistake(f"{path}:{error.lineno}", f"is not JSON: {error.msg}", "fix this line") from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise Mistake(str(path), f"is not JSON that can be read: {error}", "flatten it") from error


def _import(content: Any, where: str) -> Import:
    match content:
        case str():
            return _comparisons(content.splitlines(), where)
        case {"scale_descriptions": _}:
            what = f"is a rubric on {content.get('category')!r}: it says how bad an answer is, not how to fix it"
            raise Mistake(where, what, "write a principle with `cai constitution new`; the levels can become `checks`")
        case {"samples": _}:
            fix = "copy the examples under `examples` of a constitution"
            raise Mistake(where, "has worked examples and no principle that they belong to", fix)
        case {"principles": [{"id": _, "critique": _, "revise": _}, *_]}:
            raise Mistake(where, "is a cai constitution already", "check it with `cai constitution lint`")
        case {"constitutions": [_, *_] as listed}:
            return _with_cases(_requests(listed, where), content.get("system_chat"))
        case {"principles": [_, *_] as listed}:
            return _import(listed, where)
        case [_, *_]:
            return (_comparisons if all(isinstance(one, str) for one in content) else _requests)(content, where)
        case {} if content and all(isinstance(one, str) for one in content.values()):
            return _comparisons(list(content.values()), where)
        case {} if content and all(isinstance(one, dict) for one in content.values()):
            return _requests([{"name": name, **one} for name, one in content.items()], where)
    fix = "it reads llm-swarm and NeMo JSON, lists of critique and revision requests, or of 'Select the response ...'"
    raise Mistake(where, "is in no format that import knows", fix)


# --- A critique request and a revision request for each principle -----------------------------------------------------

_NAME = ("name", "id")
_CRITIQUE = ("critique", "critic", "critique_request", "prompt")
_REVISE = ("revise", "revision", "revision_request", "edit_request")
_WRAPPING = re.compile(r"^\s*(?:critique|revision) ?request:|(?:critique|revision):\s*$", re.IGNORECASE)


def _requests(listed: list[Any], where: str) -> Import:
    principles, labels, left = [], [], set[str]()
    for number, entry in enumerate(listed, start=1):
        if not isinstance(entry, dict):
            raise Mistake(f"{where}: principle {number}", f"is {entry!r:.40}", "write a mapping with its two requests")
        name = _first(entry, _NAME)
        here = f"{where}: principle {name or number}"
        texts = {"critique": _request(entry, _CRITIQUE, here), "revise": _request(entry, _REVISE, here)}
        principles.append(texts)
        labels.append(name)
        left |= entry.keys() - {*_NAME, *_CRITIQUE, *_REVISE}
    notes = [f"Left out, since cai has no field for it: {', '.join(map(_quoted, sorted(left)))}."] if left else []
    if not all(labels):
        notes.append(_INVENTED_IDS)
        names = _rare_words([principle["revise"] for principle in principles])
        labels = [label or gist for label, gist in zip(labels, names, strict=True)]
    return Import(_identified(principles, labels), [], notes)


def _request(entry: Mapping[str, Any], keys: tuple[str, ...], here: str) -> str:
    text = _WRAPPING.sub("", _first(entry, keys)).strip()
    if not text:
        raise Mistake(here, f"has no single text under {' or '.join(keys)}", "add it, or delete the principle")
    return text


def _first(entry: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        match entry.get(key):
            case str(text) | [str(text)]:
                return text
    return ""


# --- Few-shot chats: question, answer, critique request, critique, revision request, revision -------------------------


def _with_cases(found: Import, chats: Any) -> Import:
    """Puts each chat under the principle whose critique request it uses, else at the top."""
    chats = chats if isinstance(chats, list) else []
    by_request = {principle["critique"]: principle for principle in found.principles}
    examples, notes, left = list[Entry](), list(found.notes), 0
    for chat in chats:
        turns = _turns(chat)
        if len(turns) != 6:
            left += 1
            continue
        prompt, answer, request, critique, _, revision = turns
        case = {"prompt": prompt, "answer": answer, "critique": critique, "revision": revision}
        if revision == answer:
            del case["revision"]
        holder = by_request.get(request)
        (examples if holder is None else holder.setdefault("examples", [])).append(case)
    if left:
        notes.append(f"{left} of {len(chats)} chats are not question, answer, critique, revision, and were left out.")
    return Import(found.principles, examples, notes)


def _turns(chat: Any) -> list[str]:
    """The texts of a chat in which user and assistant take turns; empty if it is anything else."""
    if not isinstance(chat, list):
        return []
    texts = []
    for turn, role in zip(chat, ("user", "assistant") * 3, strict=False):
        match turn:
            case {"role": str(speaker), "content": str(text)} if speaker.lower() == role and text.strip():
                texts.append(text.strip())
    return texts if len(texts) == len(chat) else []


_INVENTED_IDS = "The source has no names: ids were made from its rarer words. Choose better ones before the first run."

# --- Sentences that say which of two responses to prefer --------------------------------------------------------------

_BULLET = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+")
_COMPARE = re.compile(
    r"\b(?:select|choose|pick|prefer) (?:the|whichever) (?:assistant |ai )?"
    r"(?:response|answer|output|reply|completion)\s+(?P<clause>\S.*)",
    re.IGNORECASE | re.DOTALL,
)


def _comparisons(lines: Iterable[str], where: str) -> Import:
    sentences = [_BULLET.sub("", line).strip() for line in lines if line.strip()]
    found = [_COMPARE.search(sentence) for sentence in sentences]
    clauses = [match["clause"].rstrip(" .") if match else "" for match in found]
    if clauses.count("") >= len(clauses) / 2:
        words = sum(len(sentence.split()) for sentence in sentences)
        what = f"is prose ({words:,} words): which of it are principles, and what to ask a critic, is yours to decide"
        raise Mistake(where, what, "start with `cai constitution new` and write one principle for each rule you want")
    principles = []
    for sentence, clause in zip(sentences, clauses, strict=True):
        if not clause:
            what = f"{sentence!r:.60} does not say which response to choose, as the other lines do"
            raise Mistake(where, what, "delete the line, or write it as 'Choose the response that ...'")
        principles.append(_from_comparison(sentence, clause))
    return Import(_identified(principles, _rare_words(clauses)), [], list(_DERIVED))


def _from_comparison(sentence: str, clause: str) -> Entry:
    return {
        "critique": f"Say where the answer falls short of being a response {clause}.",
        "revise": f"Rewrite the answer so that it becomes a response {clause}.",
        "compare": sentence,
    }


_DERIVED = (
    "The source only says which of two responses to choose, and that is kept word for word as `compare`.",
    "`critique` and `revise` were made from its clause by rule: nobody has written or tried them. Read each one.",
    "If the source was found from preference data, a principle may describe a fault that its annotators liked.",
    _INVENTED_IDS,
)

# --- Names ------------------------------------------------------------------------------------------------------------


def _slug(text: str) -> str:
    return "-".join(_words(text))[:60].strip("-")


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower().replace("'", "")
    return re.findall(r"[a-z0-9]+", plain)


def _rare_words(texts: list[str]) -> list[str]:
    """For each text the three words that fewest of the others use, longer words first, in their order."""
    used = Counter(word for text in texts for word in set(_words(text)))
    found = []
    for text in texts:
        words = dict.fromkeys(_words(text))
        rarest = sorted(words, key=lambda word: (used[word], -len(word)))[:3]
        found.append(" ".join(word for word in words if word in rarest))
    return found


def _identified(principles: list[Entry], labels: list[str]) -> list[Entry]:
    """The principles with an id each, made from its label and never from its position."""
    slugs = [_slug(label) or "principle" for label in labels]
    marks = [digest(principle["critique"], principle["revise"])[:6] for principle in principles]
    ids = [slug if slugs.count(slug) == 1 else f"{slug}-{mark}" for slug, mark in zip(slugs, marks, strict=True)]
    return [{"id": id, **principle} for id, principle in zip(ids, principles, strict=True)]


# --- Writing ----------------------------------------------------------------------------------------------------------


def _yaml(found: Import, source: str) -> str:
    about = f"Imported from {_quoted(source)}."
    notes = [f"{about} The texts stay under the licence of their source.", *found.notes]
    data: Entry = {"name": _slug(source.partition(".")[0]) or "imported", "version": "0.1.0", "about": about}
    if found.examples:
        data["examples"] = found.examples
    yaml, text = YAML(), StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10 * WIDTH  # lines are broken below, since ruamel leaves a space at the end of those it breaks
    yaml.dump(_blocks(data | {"principles": found.principles}), text)
    head = ["yaml-language-server: $schema=schema.json", "", *notes]
    return "".join(f"# {line}".rstrip() + "\n" for line in head) + text.getvalue()


def _quoted(name: str) -> str:
    return json.dumps(name)  # one line of ASCII: a name must not end the comment it is in


def _blocks(value: Any) -> Any:
    """Long texts as folded and texts of several lines as literal blocks; quoted where a block would change them."""
    if isinstance(value, dict):
        return {key: _blocks(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_blocks(item) for item in value]
    lines = value.split("\n")
    if not all(line.isprintable() and line == line.strip() for line in lines):
        return DoubleQuotedScalarString(value)
    return LiteralScalarString(value) if len(lines) > 1 else _folded(value)


def _folded(text: str) -> Any:
    lines = wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    if len(lines) < 2 or " ".join(lines) != text:
        return text
    block = FoldedScalarString(text)
    block.fold_pos = [end + at for at, end in enumerate(accumulate(len(line) for line in lines[:-1]))]
    return block
