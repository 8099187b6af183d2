"""What a server's refusal means: worth another try, hopeless for this request, or hopeless for every request.

Left out on purpose: one rule per server. Servers that speak the same API word the same trouble differently, so what
decides is the status and, where that says too little, a few words that OpenAI, Anthropic, vLLM, SGLang, llama.cpp, TGI
and the gateways in front of them use.
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
"""Kinds of Transient that are about load: a signal to the throttle, not an attempt lost."""
TRANSIENT = {
    408: "timeout",
    409: "conflict",
    425: "too_early",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}
LONGEST = 600.0
"""Seconds that an endpoint may ask to be left alone before the run stops instead of waiting."""
WORDS = 400
"""Characters kept of what a server said, and looked at: it may go on to repeat the prompt."""

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

_MESSAGE = ("error", "message", "detail", "msg", "errors")


def status_error(where: str, status: int, headers: Mapping[str, str], said: str) -> CaiError:
    """The error for an answer that is none; `said` is its body as text, keys already taken out."""
    words, code = _gist(said)
    wait, gist = retry_after(headers), f"{words} {code}"
    words = f"{status}: {words or code}".removesuffix(": ")
    if hopeless := _hopeless(status, gist):
        what, fix = hopeless
        return Refused(where, f"{what} ({words})", fix)
    if wait and wait > LONGEST:
        return Refused(where, f"asks to come back in {wait:.0f} s ({words})", "the same command then goes on")
    if status in TRANSIENT or status >= 500:
        return Transient(TRANSIENT.get(status, "server_error"), words, retry_after=wait)
    if status == 413 or _TOO_LONG.search(gist):
        return Permanent("context_too_long", words)
    return Permanent("content_filter" if _FILTERED.search(gist) else "bad_request", words)


def _hopeless(status: int, gist: str) -> tuple[str, str] | None:
    """Why every other request would fare no better, and what to do; None where another may."""
    if status in (401, 403) and not _FILTERED.search(gist):
        return "the key was refused", "check the key, and the variable that api_key_env names"
    if status == 402 or (status < 500 and _UNPAID.search(gist)):
        return "the account cannot pay", "top it up; the same command goes on from there"
    if 300 <= status < 400:
        return "redirects", "set base_url to where it leads"
    if status >= 408 and status != 422:
        return None
    if status in (404, 405) or _NO_MODEL.search(gist):
        return "there is no such model or address", "check model and base_url"
    if _NO_FIELD.search(gist):
        return "does not take a field that was sent", "see `extra_body`, `seed` and `max_tokens_field`"
    return None


def body_error(where: str, error: Any) -> CaiError:
    """The error inside an answer whose status says 200, as gateways send it when they had begun to answer."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return status_error(where, status, {}, to_json({"error": error}).decode())


def _gist(said: str) -> tuple[str, str]:
    """A server's own words on one line and its code for them: from a JSON error, else the start of whatever came."""
    code = ""
    try:
        found: Any = from_json(said)
    except ValueError:
        found = re.sub(r"<[^>]*>", " ", said[:20_000])  # an HTML page from a gateway
    for _ in range(4):
        if isinstance(found, list):
            found = found[0] if found else ""
        if isinstance(found, dict):
            code = " ".join(str(found[name]) for name in ("code", "type") if found.get(name)) or code
            found = next((found[name] for name in _MESSAGE if found.get(name)), "")
    return " ".join(str(found).split())[:WORDS], code[:WORDS]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server wants to be asked again, from a number or an HTTP date; None where it does not say."""
    given = headers.get("Retry-After", "").strip()
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        return max(0.0, float(given)) if given else None
    except ValueError:
        return _until(given, headers.get("Date", ""))


def _until(then: str, now: str) -> float | None:
    # by the server's own clock where it says what that is: ours may be wrong
    try:
        start = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(then) - start).total_seconds())
    except (ValueError, OverflowError, TypeError):  # TypeError: a date without its zone, which HTTP does not allow
        return None
