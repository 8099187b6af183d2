"""How long a server asks to wait: Retry-After, the reset times of its rate limits, and hints inside the error.

The order is that of precision: Retry-After, Google's RetryInfo, "try again in 2.4s", then the reset times of the limits
that are used up.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

UNKNOWN = math.inf
"""A limit of which nobody says when it ends."""
EPOCH = 1e9
"""A number above this is a point in time, in seconds or milliseconds since 1970, and not a wait."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(ms|[smhd])?")
_IN = re.compile(
    r"(?:retry|try again|wait|reset\w*)(?: after| in| for)? (?:about )?"
    r"((?:\d{1,9}(?:\.\d{1,9})?\s?[a-z]{1,12}\.?\s?){1,4})",
    re.IGNORECASE,
)
_WORD_UNITS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?(ms|milli|sec|s|min|m|hour|h|day|d)", re.IGNORECASE)
_DAY_CODE = re.compile(r"PerDay|per_day|daily_limit|free-models-per-day|_rpd|_tpd", re.IGNORECASE)
_DAY_WORDS = re.compile(r"per[ -_]day|\bdaily\b|\b[TR]PD\b|per 24 hours|today", re.IGNORECASE)


def wait_hint(headers: Mapping[str, str], body: object, *, trusted: bool = True) -> float | None:
    """Seconds to wait, from an error's headers and JSON; None where neither says, negative for a time that is past.

    Hints within the error's text are left out where they are not `trusted`: Google names seconds for a limit of a day.
    """
    if (asked := retry_after(headers)) is not None:
        return asked
    strings = list(_strings(body))
    if trusted and (hint := _hint(strings)) is not None:
        return hint
    own = {name: text for name, text in strings if "ratelimit" in name.lower()}
    return _reset({name.lower(): value for name, value in (*headers.items(), *own.items())})


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The Retry-After in seconds, given as a number or an HTTP date; None if there is none."""
    given = headers.get("Retry-After", "").strip()
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return _sane(float(milliseconds) / 1000)
        return _sane(float(given)) if given else None
    except ValueError:
        return _until(given, headers.get("Date", ""))


def names_day(raw: str) -> Literal["code", "words", ""]:
    """Whether an error is about a limit of a day: by a code of its own, in words only, or not at all."""
    if _DAY_CODE.search(raw):
        return "code"
    return "words" if _DAY_WORDS.search(raw) else ""


def ends_at(wait: float) -> str:
    """The time at which a wait ends, in UTC."""
    try:
        end = datetime.fromtimestamp(time.time() + wait, UTC)
    except (OverflowError, ValueError, OSError):
        return "an unknown time" if wait == UNKNOWN else "a time beyond the calendar"
    return end.strftime("%Y-%m-%d %H:%M UTC")


def _sane(seconds: float) -> float | None:
    return None if math.isnan(seconds) else max(0.0, seconds)


def _until(then: str, now: str) -> float | None:
    # by the server's own clock if it sends the time: ours may be wrong
    try:
        start = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(then) - start).total_seconds())
    except (ValueError, OverflowError, TypeError):  # TypeError: a date without its zone, which HTTP does not allow
        return None


def _strings(found: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every short text in a JSON error, with the name of its field; ten levels deep."""
    if isinstance(found, str | int | float) and not isinstance(found, bool):
        yield name, str(found)
    elif depth < 10 and isinstance(found, dict):
        for key, value in list(found.items())[:50]:
            yield from _strings(value, str(key), depth + 1)
    elif depth < 10 and isinstance(found, list):
        for value in found[:50]:
            yield from _strings(value, name, depth + 1)


def _hint(strings: Iterable[tuple[str, str]]) -> float | None:
    """The wait that an error's own fields and words name."""
    strings = list(strings)
    for name, text in strings:
        if name == "retryDelay" and (delay := _seconds(text)) is not None:
            return delay
    for _, text in strings:
        if found := _IN.search(text[:2000]):
            return sum(_word_seconds(number, unit) for number, unit in _WORD_UNITS.findall(found[1]))
    return None


def _reset(headers: Mapping[str, Any]) -> float | None:
    """The longest wait among the limits that are used up; where none is said to be, the shortest of all."""
    waits = dict[str, float]()
    for name, value in headers.items():
        if "ratelimit" in name and "reset" in name and (wait := _seconds(str(value))) is not None:
            waits[name] = wait
    used_up = [wait for name, wait in waits.items() if str(headers.get(name.replace("reset", "remaining"))) == "0"]
    return max(used_up) if used_up else min(waits.values(), default=None)


def _seconds(text: str) -> float | None:
    """A wait written as `2.4s`, `6m0s`, `17ms`, a number of seconds, a time since 1970, or an RFC 3339 date."""
    text = text.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        if len(parts) == 1 and not parts[0][1]:
            return _from_number(float(parts[0][0]))
        return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    try:
        then = datetime.fromisoformat(text)
        return max(0.0, (then - datetime.now(then.tzinfo or UTC)).total_seconds()) if then.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _from_number(number: float) -> float:
    if number < EPOCH:
        return number
    return (number / 1000 if number > 100 * EPOCH else number) - time.time()


def _word_seconds(number: str, unit: str) -> float:
    unit = unit.lower()
    return float(number) * (_UNITS["ms"] if unit in ("ms", "milli") else _UNITS[unit[0]])
