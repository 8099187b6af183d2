"""Takes remarks about the revision off the start and the end of an answer.

Each function returns the text unchanged where there is none, and looks at its first or last characters only.

Left out on purpose: remarks in the middle, which are noticed by the gate `meta` and cannot be cut out safely.
"""

from __future__ import annotations

import re

from cai.gates.remarks.sentences import (
    after_openers,
    announces,
    describes,
    is_label,
    offers,
    says_nothing,
    sentences,
    thanks,
)

HEAD = 500
"""Characters at the start in which an announcement must stand."""
TAIL = 4000
"""Characters at the end in which remarks must begin."""

SEEN = 20_000
"""Characters in which the label of a revision must stand."""

_HEADING = re.compile(r"(?:#{1,6} ?|\*\*|__|\[|\()+([^\n*_#\])]{2,60})(?:\*\*|__|\]|\))*[:：]?(?:\*\*|__)?[ \t]*\n")
_COLON = re.compile(r"([^\n:：]{1,240})[:：][*_`]{0,3}(?=\s|[\"'“‘«「*_#(]|[^\x00-\x7f])\s*|([^\n:：]{1,20}[:：])\s*")
_NAMED = re.compile(
    r"\n[ \t]*([#*_]{0,4} ?[^\n:：*_#]{2,40})(?:[*_]{0,3}[:：][*_]{0,3}|[*_]{2}[ \t]*(?=\n)|(?<=\w)(?=\n))"
)
"""A line that may name a section."""
_ANNOUNCING = re.compile(r"\n[ \t]*([^\n:：]{8,160})[:：][*_]{0,2}[ \t]*\n")
EARLY = 1200
"""Characters in which a critique before the revision must end."""
_VERDICT = re.compile(r"\W{0,4}(?:final )?verdict\W{0,6}(?:revise|keep)\W{0,4}", re.IGNORECASE)
_CHANGES = (
    r"(?:(?:key|main|summary of|list of|the|my|other|specific|notable|overview of|significant|major) )*"
    r"(?:changes?|edits?|modifications?|revisions|adjustments?)(?: (?:i |that were |i have |i['’]ve )?(?:made|applied"
    r"|explained|summary|log|list|notes?))?"
    r"|(?:improvements?|corrections?) (?:made|applied)|what (?:i |was |has been |has )?(?:changed|removed"
    r"|edited)(?: and why)?"
    r"|why (?:this|it) (?:\w+ )?is better|principles? (?:followed|applied)|key improvements"
    r"|explanation of (?:the |my )?(?:changes?|edits?|revisions?|modifications?)|(?:revision|change|editor['’]?s?"
    r"|editing) (?:notes?|summary|log)"
    r"|(?:self-)?critique(?: of .{0,40})?|(?:original|previous|old)(?: (?:answer|response|text|version|reply|draft))?"
    r"|(?:vorgenommene |wichtigste |die )?änderungen|was (?:ich )?geändert (?:wurde|habe)|kritik|ursprüngliche antwort"
    r"|original(?:antwort)?"
    r"|(?:principa(?:les|ux) )?(?:modifications|changements)(?: (?:apportée?s|effectuée?s|principa(?:les|ux)))?"
    r"|critique|réponse originale"
    r"|(?:principales )?(?:cambios|modificaciones)(?: (?:realizad[ao]s|hech[ao]s|principales|efectuad[ao]s))?"
    r"|principales cambios|crítica|respuesta original"
    r"|(?:主要)?(?:修改|改动|更改|变更|修订|调整)(?:说明|内容|之处|点|如下|要点|理由)?|原(?:回答|文|答案|始回答)|批评|评论"
)
_VAGUE = (
    r"reason|self-check|what['’]s different|status|explanation|rationale|reasoning|justification|analysis|thoughts?"
    r"|before|old|improvements"
    r"|why (?:this|it) works|begründung|erklärung|explication"
    r"|explicación|解释|理由"
)
"""Names of sections that answers have too: they count where their content is about the revision."""
_SECTION = re.compile(
    rf"^[ \t>]{{0,4}}(?P<marks>[#*_(\[]{{0,4}}) ?(?:(?P<name>{_CHANGES})"
    rf"|(?P<vague>{_VAGUE}))(?: ?\([^)\n]{{0,30}}\))?[*_)\]]{{0,3}}"
    r"(?P<colon> ?[:：])?[*_]{0,3}(?:[ \t]*(?P<end>$)|(?<=[:：*_])[ \t]*(?=\S))",
    re.IGNORECASE | re.MULTILINE,
)
_ELEMENT = re.compile(
    r"\n\s*<(explanation|changes|critique|notes?|rationale|reasoning|comment)>[^<]*</\1>\Z", re.IGNORECASE
)
_EXPLICIT = re.compile(
    r"revis|rewri|updated|improved|corrected|überarbeitet|réécri|reescrit|修改|修订|改写", re.IGNORECASE
)
_LATER = frozenset(("after", "new", "updated", "nachher", "neu", "après", "después", "nuevo"))
_CRITIQUE = re.compile("criti|kritik|crítica|批评|评论", re.IGNORECASE)
"""A text that plays both roles is not mended; the gate `roles` drops it."""
_NOTE = re.compile(
    r"[(\[（【*_]{1,3}(?P<sign>word count[^\n]{0,40}|end of (?:the )?(?:\w+ )?(?:answer|response|revision|version"
    r"|text))[)\]）】*_]{1,3}"
    r"|[(\[](?:this|it) (?:removes|keeps|avoids|follows|drops|omits|leaves|respects)\b[^()\[\]\n]{0,200}[)\]]"
    r"|(?:remarque|nota|anmerkung|hinweis|注|备注|说明) ?[:：][^\n]{0,600}"
    r"|[(\[（【*_]{1,3}(?:please )?(?P<note>note|nb|n\.b\."
    r"|editor['’]?s note|anmerkung|hinweis|remarque|note de .{0,20}"
    r"|nota|注|注意|备注|说明)\b ?[:：]"
    r"[^\n]{0,600}[)\]）】*_]{1,3}\.?",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"\b(?:was|were) (?:not needed|unnecessary|out of place)|entfernt|gestrichen|retiré|supprimé|eliminad|"
    r"\b(?:the|this|my|your) (?:original|previous|revised|new|old)\b|\bprinciple|\bcritique|\bunsupported|\b(?:this"
    r"|the) (?:revision|version)\b"
    r"|\b(?:removed|shortened|rewrote|rephrased|revised|omitted)\b|prinzip|principe|principio|原则|删除|修改",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"\bi(?:['’]ve)? (?:have |also |only )*\w+(?:ed|t|ew|ut|ook|ade|rote)\b|\b(?:removed|revised|changed|principle"
    r"|guideline|original|critique|shortened"
    r"|omitted|rewritten|ich habe|geändert|entfernt|j['’]ai|supprimé|modifié|he \w+d[oa]|elimin|retiré|entfern"
    r"|cambi)|删|修改|原则|省略|去掉|去除",
    re.IGNORECASE,
)


def without_head(text: str) -> str:
    """`text` without an announcement, a label, a heading or a remark of its own paragraph at its start."""
    start = text[:HEAD]
    if start.startswith("{"):
        return text
    if (heading := _HEADING.match(start)) and is_label(heading[1]):
        return _rest(text, heading.end())
    found = _COLON.match(start)
    here = found is not None and found[0].lower().endswith("here it is: ")  # without a line break it gives an address
    if found and not here and announces(found[1] or found[2]):
        return _rest(text, found.end())
    line, broken, _ = start.partition("\n")
    if broken and (_VERDICT.fullmatch(line) or _remark(line, text[len(line) :]) or is_label(line)):
        return _rest(text, len(line))
    opened = after_openers(start)
    return _rest(text, len(start) - len(opened)) if start[:1] > "\u3000" and opened != start else text


def without_tail(text: str) -> str:
    """`text` without a list of its changes, a remark on it, a bracketed note, a verdict or an offer at its end."""
    cut = text.rstrip()
    line = cut.rfind("\n", max(0, len(cut) - TAIL)) + 1
    last = cut[line:]
    if line and (_VERDICT.fullmatch(last) or _aside(last)):
        return cut[:line].rstrip()
    if (element := _ELEMENT.search(cut, max(1, len(cut) - TAIL))) and element.end() == len(cut):
        return cut[: element.start()].rstrip()
    section = next(filter(None, map(_own_section, _SECTION.finditer(cut, max(1, len(cut) - TAIL)))), None)
    if section:
        return cut[: section.start()].rstrip()
    return _without_last_sentences(cut, line)


def revised_section(text: str) -> str:
    """What follows the label of the revision, where an earlier answer, a list of changes or an analysis is first."""
    first = _SECTION.match(text)
    named = first is not None and bool(first["colon"] or first["marks"])
    if _CRITIQUE.search(text[:40]) and named:
        return text
    for line in _ANNOUNCING.finditer(text, 0, EARLY):
        if not named and not is_label(line[1]) and announces(line[1]) and _EXPLICIT.search(line[1]):
            return _rest(text, line.end())
    for found in _NAMED.finditer(text, 0, SEEN):
        label = found[1].strip("#*_ ").lower()
        if (is_label(label) and (named or _EXPLICIT.search(label))) or (named and label in _LATER):
            return _rest(text, found.end())
    return text


def _rest(text: str, at: int) -> str:
    """What follows; all of it where nothing would be left."""
    return text[at:].strip() or text


def _remark(line: str, rest: str) -> bool:
    """Whether a first line is a paragraph of remarks."""
    said = sentences(after_openers(line))
    return bool(said) and rest.startswith("\n\n") and len(line) < HEAD and all(map(describes, said))


def _aside(last: str) -> bool:
    """Whether a last line is a bracketed note, or remarks and offers only."""
    if len(last) > 700:
        return False
    note = _NOTE.fullmatch(last.strip())
    if note and (_PERSON.search(last) or note["sign"] or not note["note"]):
        return True
    said = sentences(last)
    if len(last.split()) == 1 and last.isascii() and not last.isupper() and "(" not in last:
        return False  # `pass`, `none`: one word is more often the answer's
    said = [one for one in said if not thanks(one)]
    return bool(said) and all(describes(one) or offers(one) or says_nothing(one) for one in said)


def _own_section(found: re.Match[str]) -> re.Match[str] | None:
    """A line that heads a list of changes, an old answer or a critique; a bare word without a colon does not."""
    if not (found["colon"] or found["marks"]):
        return None
    return found if found["name"] or _ABOUT.search(found.string[found.end() : found.end() + 400]) else None


def _without_last_sentences(text: str, line: int) -> str:
    """`text` without the remarks that end its last line."""
    said = sentences(text[line:][-TAIL:])
    while len(said) > 1 and (describes(said[-1]) or offers(said[-1])):
        at = text.rfind(said.pop())
        if at <= line:
            break
        text = text[:at].rstrip()
    return text
