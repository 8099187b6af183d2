"""Classifies a server's error: worth another try, one request's own, or one that would stop every request.

Servers with the same API word the same error differently. Codes decide before words: a 429 that names a time is a rate
limit, whatever it says of quotas. What can be the fault of one prompt is that prompt's; what cannot (a key, a model, a
field) is a `Suspect`, which stops a run once `first_answers` has seen enough of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from cai.backends.http.endpoint import Endpoint
from cai.backends.http.wait_hint import UNKNOWN, ends_at, names_day, wait_hint
from cai.core.errors import CaiError, Permanent, Refused, Transient

BUSY = ("rate_limited", "overloaded")
"""Kinds of Transient that are about load: they slow the throttle down and do not use up a try."""
TRANSIENT = {
    408: "timeout",
    409: "conflict",
    425: "too_early",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}
LONGEST = 600.0
"""The longest wait, in seconds, that a server can ask for without stopping the run."""
LONGEST_DAY = 2 * 86_400.0
"""The same with `wait: true`."""
LOOK = 600.0
"""Seconds between tries with `wait: true`, at a limit of which nobody says when it ends."""
WORDS = 400
"""Characters of a server's message that are read and kept: after that it may repeat the prompt."""

_TOO_LONG = re.compile(
    r"context.?(?:length|window|size|limit).{0,60}(?:exceed|too|larger?|limit|tokens|reach)|context_length_exceeded"
    r"|exceed\w* .{0,40}(?:context|max(?:imum)?(?: allowed)? (?:length|number of tokens|prompt|input))"
    r"|maximum (?:model |context |prompt |input |sequence )+length"
    r"|(?:prompt|input|request|text|string|messages?)(?: is| are)? too (?:long|large)"
    r"|longer than (?:the )?(?:maximum )?(?:model|context|allowed|max)"
    r"|token count.{0,40}exceed|max_new_tokens`? must be|too many (?:input |prompt )?tokens|string_above_max_length"
    r"|range of input length|reduce the length|(?:prompt|input) (?:exceeds|length).{0,20}max|request_too_large"
    r"|上下文长度|输入.{0,6}(?:过长|超长)|长度超过|超出.{0,6}长度",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content.?(?:filter|policy|management|moderation|safety|inspection)|ResponsibleAI|\bflagged\b"
    r"|\bmoderat(?:ion|ed)\b|content (?:exists? risk|violat)|violat\w* .{0,60}(?:guideline|polic|terms|safety|rules)"
    r"|usage (?:guideline|polic)"
    r"|safety.?(?:check|system|filter|setting|rating|polic|reason)|data.?inspection.?failed|high.?risk"
    r"|(?:inappropriate|sensitive|unsafe|harmful|prohibited|illegal|disallowed|forbidden) (?:content|information|input)"
    r"|sensitive.?(?:content|word|information)|(?:input|output)_?(?: new_)?sensitive|guardrail|jailbreak|block.?reason"
    r"|prohibited.?content|blocked by"
    r"|(?:request|prompt|input|response|output|content) (?:was |is |has been |were )?(?:blocked|rejected)"
    r"|invalid_prompt|\bsensitive\b|敏感|违规|不合规|内容安全|安全审核|风险",
    re.IGNORECASE,
)
_FILTER_STATUS = (200, 400, 403, 404, 406, 418, 421, 422, 424, 446, 451, 500, 502)
"""With these, words about a filter mean one; a 401, 402 or 429 is about something else."""
_UNPAID = re.compile(
    r"insufficient.(?:quota|balance|credits?|funds)|exceeded your current quota|billing.?(?:hard.limit|not.active)"
    r"|credit balance|out of credits|(?:no|more|not enough) credits|account.{0,30}(?:overdue|arrears|suspended for non)"
    r"|payment required|余额不足|欠费",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model.not.found|(?:invalid|unknown) model|no such model"
    r"|model\b.{0,120}\b(?:does not exist|not exist|not found|is not available|not supported|no access|decommissioned)",
    re.IGNORECASE,
)
_NO_FIELD = re.compile(
    r"(?:unsupported|unknown|unrecognized|unexpected|invalid)[ _](?:request )?(?:parameter|argument|value|field)"
    r"|extra.(?:inputs?|fields?)(?: are)?.(?:not permitted|forbidden)|extra_forbidden|unsupported_(?:parameter|value)"
    r"|not supported (?:with|by|for) this model|only the default|cannot both be specified|is deprecated for this model",
    re.IGNORECASE,
)
_NO_SYSTEM = re.compile(
    r"system (?:role|message|prompt|instruction)s?.{0,20} not (?:supported|allowed|enabled|permitted)"
    r"|(?:does not|doesn't|not) support.{0,20}\b(?:system|developer)\b|developer instruction is not enabled"
    r"|roles must alternate|only (?:the )?user and assistant roles|unexpected role.{0,10}system"
    r"|role.{0,10}system.{0,30}invalid|invalid role.{0,10}system|unknown role.{0,10}system",
    re.IGNORECASE,
)
_KEYS = re.compile(r"\b(?:api.?key|authenticat\w+|auth|credentials?|unauthori[sz]ed|bearer)\b", re.IGNORECASE)
_FIELDS = ("max_tokens", "max_completion_tokens", "seed", "temperature", "top_p", "logprobs")
_MESSAGE_FIELDS = (
    "error",
    "message",
    "detail",
    "msg",
    "errors",
    "error_msg",
    "errorMessage",
    "base_resp",
    "status_msg",
)
_CODE_FIELDS = ("code", "type", "status", "reason", "status_code")
_NAMED_STATUS = {
    "overloaded": 529, "rate_limit": 429, "resource_exhausted": 429, "authentication": 401, "unauthenticated": 401,
    "permission": 403, "not_found": 404, "invalid_request": 400, "invalid_argument": 400, "unavailable": 503,
    "timeout": 408, "request_too_large": 413, "billing": 402, "insufficient": 402, "content_filter": 400,
}  # fmt: skip
"""Words of an error's code or type -> the status that it would have had."""


class Suspect(Permanent):
    """An error that this request does not cause, as far as its words say: `what` it means for all, and the `fix`."""

    def __init__(self, kind: str, words: str, what: str, fix: str) -> None:
        self.what, self.fix = what, fix
        super().__init__(kind, words)


def status_error(endpoint: Endpoint, where: str, status: int, headers: Mapping[str, str], body: str) -> CaiError:
    """The error for an answer with this status; `body` is its text, with the key already removed."""
    said = _Said(body)
    words = f"{status}: {said.words or said.code}".removesuffix(": ")
    if status == 429 or (status < 500 and said.status == 429):
        return _limited(endpoint, where, words, said, headers)
    if said.html and status in (400, 403, 406, 418, 422, 451):
        return Permanent("content_filter", f"{words} (a page of a web application firewall, not an answer of the API)")
    if status == 451 or (status in _FILTER_STATUS and said.filtered):
        return Permanent("content_filter", words)
    if status == 402 or (status < 500 and _UNPAID.search(said.text)):
        return Refused(where, f"the account has no credit left ({words})", "top it up and start the same command again")
    if status == 413 or _TOO_LONG.search(said.text):
        return Permanent("context_too_long", words)
    if suspect := _suspect(status, said, words):
        return suspect
    if status in TRANSIENT or status >= 500:
        return passing(endpoint, where, TRANSIENT.get(status, "server_error"), words, wait_hint(headers, said.found))
    named = any(name in said.words for name in _FIELDS)
    return Suspect("bad_request", words, "every request is refused", _advice(said) if named else "fix what it names")


def body_error(endpoint: Endpoint, found: object) -> CaiError:
    """The error inside an answer with status 200, as gateways send it if they have already begun to answer."""
    body = to_json(found, inf_nan_mode="null").decode()
    return status_error(endpoint, endpoint.place, _Said(body).status or 502, {}, body)


def has_error(answer: object) -> bool:
    """Whether a JSON answer with status 200 is an error, in one of the dialects that gateways use."""
    if not isinstance(answer, dict):
        return False
    if answer.get("error") or answer.get("object") == "error" or answer.get("type") == "error":
        return True
    if answer.get("choices") or "content" in answer:
        return False
    return any(answer.get(name) for name in (*_MESSAGE_FIELDS, "promptFeedback", "code"))


def passing(endpoint: Endpoint, where: str, kind: str, words: str, wait: float | None) -> Transient | Refused:
    """Trouble that passes, after `wait` seconds if that is known; Refused where that is too long to wait for."""
    if wait is None or wait <= LONGEST:
        return Transient(kind, words, retry_after=None if wait is None else max(0.0, wait))
    if endpoint.wait and wait <= LONGEST_DAY:
        return Transient(kind, words, retry_after=wait)
    if endpoint.wait and wait == UNKNOWN:
        return Transient(kind, words, retry_after=LOOK)
    fix = "start the same command again then"
    if not endpoint.wait and (wait <= LONGEST_DAY or wait == UNKNOWN):
        fix += ", or add --wait"
    return Refused(where, f"a limit holds until {ends_at(wait)} ({words})", fix)


def _limited(endpoint: Endpoint, where: str, words: str, said: _Said, headers: Mapping[str, str]) -> CaiError:
    """A rate limit, unless it names no time and says that the account is empty."""
    day = names_day(said.raw)
    wait = wait_hint(headers, said.found, trusted=day != "code")
    empty = _UNPAID.search(said.code) or (day != "code" and _UNPAID.search(said.words))
    if wait is None and empty:
        return Refused(where, f"the account has no credit left ({words})", "top it up and start the same command again")
    if day and wait is not None and wait < 0 and not endpoint.wait:
        what = f"a limit of a day holds; by the server it ended at {ends_at(wait)} ({words})"
        return Refused(where, what, "start the same command again later, or add --wait")
    if day and (wait is None or wait < 0):
        wait = UNKNOWN
    return passing(endpoint, where, "rate_limited", words, wait)


def _suspect(status: int, said: _Said, words: str) -> Suspect | None:
    if status == 401 or (status == 400 and _KEYS.search(said.text)):
        return Suspect(
            "unauthorized", words, "the key was refused", "check the key, and the variable that api_key_env names"
        )
    if 300 <= status < 400:
        return Suspect("redirect", words, "redirects", "set base_url to the address that it redirects to")
    if status >= 408 and status != 422:
        return None
    if _NO_SYSTEM.search(said.text):
        return Suspect("system_role", words, "does not take the system role", "set `system: fold`")
    if status in (200, 400, 422) and _NO_FIELD.search(said.text):
        return Suspect("field", words, "does not take a field that was sent", _advice(said))
    if status in (404, 405) or _NO_MODEL.search(said.text):
        return Suspect("not_found", words, "there is no such model or address", "check model and base_url")
    if status == 403:
        return Suspect("forbidden", words, "the key was refused", "check the key, and what it may use")
    return None


def _advice(said: _Said) -> str:
    """The option that leaves out or renames the field that an error names."""
    named = [said.param, *re.findall(r"[`'\"](\w+)[`'\"]", said.words), *re.findall(r"\w+", said.words)]
    field = next((name for name in named if name in _FIELDS), "")
    match field:
        case "max_tokens":
            return "set `max_tokens_field: max_completion_tokens`"
        case "max_completion_tokens":
            return "set `max_tokens_field: max_tokens`"
        case "seed":
            return "set `seed: false`"
        case "temperature" | "top_p":
            return "set `temperature: false`, which leaves out temperature and top_p"
        case "logprobs":
            return "set `logprobs: false`"
    name = said.param or field or "NAME"
    return f"leave it out with `extra_body: {{{name}: null}}`"


class _Said:
    """What an error's body says: message, code, named parameter, and the JSON that it was found in."""

    def __init__(self, body: str) -> None:
        self.raw, self.code, self.param = body[:20_000], "", ""
        start = body[:200].lstrip().lower()
        self.html = start.startswith(("<!doctype", "<html", "<head", "<body", "<h1", "<title"))
        try:
            self.found: Any = from_json(body)
        except ValueError:
            self.found = None
        self.status = 0  # the status that its code stands for, whichever it was sent under
        said = self._read(_text_of_page(self.raw) if self.found is None else self.found)
        self.words = " ".join(said.split())[:WORDS]
        self.code = self.code[:WORDS]
        self.text = f"{self.words} {self.code}"

    @property
    def filtered(self) -> bool:
        """Whether it is about what the prompt or the answer contains."""
        return bool(_FILTERED.search(self.text) or ('"blockReason"' in self.raw or "content_filter" in self.raw))

    def _read(self, found: object) -> str:
        for _ in range(6):
            if isinstance(found, list):
                found = found[0] if found else ""
            if isinstance(found, dict):
                self._note(found)
                inner = next((found[name] for name in _MESSAGE_FIELDS if found.get(name)), None)
                found = self.code if inner is None else inner
        return str(found)

    def _note(self, found: Mapping[str, Any]) -> None:
        given = [found[name] for name in _CODE_FIELDS if isinstance(found.get(name), str | int) and found.get(name)]
        self.code = " ".join(map(str, given)) or self.code
        self.status = next(filter(None, map(_status_of, given)), self.status)
        place = found.get("loc")
        param = found.get("param") or (place[-1] if isinstance(place, list) and place else "")
        self.param = param if isinstance(param, str) and param else self.param


def _status_of(code: str | int) -> int:
    """The HTTP status that an error's code or type stands for; 0 where it stands for none."""
    text = str(code)
    if re.fullmatch(r"[45]\d\d(?:\d\d)?", text):  # 40301 is a 403 of its own
        return int(text[:3])
    lower = text.lower().replace("-", "_").replace(" ", "_")
    return next((status for name, status in _NAMED_STATUS.items() if name in lower), 0)


def _text_of_page(page: str) -> str:
    """The text of an HTML page, its tags removed in linear time."""
    return " ".join(part.partition(">")[2] if number else part for number, part in enumerate(page.split("<")))
