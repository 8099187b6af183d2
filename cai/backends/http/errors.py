"""Classifies a server's error: worth another try, final for this request, or final for every request.

Servers with the same API word the same error differently. So the status decides and, if that is not enough, a few words
that OpenAI, Anthropic, vLLM, SGLang, llama.cpp, TGI and the gateways in front of them use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic_core import from_json, to_json

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
"""The longest Retry-After, in seconds, that is waited for; after a longer one the run stops."""
WORDS = 400
"""Characters of a server's message that are read and kept: after that it may repeat the prompt."""

_TOO_LONG = re.compile(
    r"context.(?:length|window|size|limit)|maximum (?:model|context) length"
    r"|(?:prompt|input|request) (?:is )?too (?:long|large)|longer than the (?:maximum model|model'?s context)"
    r"|max_new_tokens`? must be|too many (?:input )?tokens",
    re.IGNORECASE,
)
_FILTERED = re.compile(r"content.?(?:filter|policy|management)|ResponsibleAI|\bflagged\b|\bmoderation\b", re.IGNORECASE)
_UNPAID = re.compile(
    r"insufficient.(?:quota|balance|credits?|funds)|exceeded your current quota|billing.hard.limit|credit balance"
    r"|out of credits",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model.not.found|(?:invalid|unknown) model|model\b.{0,120}\b(?:does not exist|not exist|not found)", re.IGNORECASE
)
_NO_FIELD = re.compile(
    r"(?:unsupported|unknown|unrecognized)[ _](?:request )?(?:parameter|argument|value|field)"
    r"|extra (?:inputs|fields)(?: are)? not permitted|not supported (?:with|by) this model",
    re.IGNORECASE,
)

_MESSAGE_FIELDS = ("error", "message", "detail", "msg", "errors")


def status_error(where: str, status: int, headers: Mapping[str, str], body: str) -> CaiError:
    """The error for an answer with this status; `body` is its text, with the key already removed."""
    words, code = _message(body)
    wait, text = retry_after(headers), f"{words} {code}"
    words = f"{status}: {words or code}".removesuffix(": ")
    if final := _final(status, text):
        what, fix = final
        return Refused(where, f"{what} ({words})", fix)
    if wait and wait > LONGEST:
        return Refused(where, f"asks to wait for {wait:.0f} s ({words})", "start the same command again after that")
    if status in TRANSIENT or status >= 500:
        return Transient(TRANSIENT.get(status, "server_error"), words, retry_after=wait)
    if status == 413 or _TOO_LONG.search(text):
        return Permanent("context_too_long", words)
    return Permanent("content_filter" if _FILTERED.search(text) else "bad_request", words)


def _final(status: int, text: str) -> tuple[str, str] | None:
    """Why every other request would fail too, and what to do; None if another may succeed."""
    if status in (401, 403) and not _FILTERED.search(text):
        return "the key was refused", "check the key, and the variable that api_key_env names"
    if status == 402 or (status < 500 and _UNPAID.search(text)):
        return "the account has no credit left", "top it up and start the same command again"
    if 300 <= status < 400:
        return "redirects", "set base_url to the address that it redirects to"
    if status >= 408 and status != 422:
        return None
    if status in (404, 405) or _NO_MODEL.search(text):
        return "there is no such model or address", "check model and base_url"
    if _NO_FIELD.search(text):
        return "does not take a field that was sent", "see `extra_body`, `seed` and `max_tokens_field`"
    return None


def body_error(where: str, error: object) -> CaiError:
    """The error inside an answer with status 200, as gateways send it if they have already begun to answer."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return status_error(where, status, {}, to_json({"error": error}).decode())


def _message(body: str) -> tuple[str, str]:
    """A server's message on one line and its error code: from a JSON error, else the start of the body."""
    code = ""
    try:
        found: Any = from_json(body)
    except ValueError:
        found = re.sub(r"<[^>]*>", " ", body[:20_000])  # an HTML page from a gateway
    for _ in range(4):
        if isinstance(found, list):
            found = found[0] if found else ""
        if isinstance(found, dict):
            code = " ".join(str(found[name]) for name in ("code", "type") if found.get(name)) or code
            found = next((found[name] for name in _MESSAGE_FIELDS if found.get(name)), "")
    return " ".join(str(found).split())[:WORDS], code[:WORDS]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The Retry-After in seconds, given as a number or an HTTP date; None if there is none."""
    given = headers.get("Retry-After", "").strip()
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        return max(0.0, float(given)) if given else None
    except ValueError:
        return _until(given, headers.get("Date", ""))


def _until(then: str, now: str) -> float | None:
    # by the server's own clock if it sends the time: ours may be wrong
    try:
        start = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(then) - start).total_seconds())
    except (ValueError, OverflowError, TypeError):  # TypeError: a date without its zone, which HTTP does not allow
        return None
