"""Reads the JSON in an answer's body by what it is, and not by its label.

JSON is JSON under any content type, compressed or with white space before it. A stream that nobody asked for is put
together to the one answer it stands for. Everything else is `malformed`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from cai.core.errors import Transient
from cai.core.types import JsonObject

MAX_DEPTH = 200
"""Levels of JSON; pydantic's reader stops there too."""
_STREAM = (b"data:", b"event:", b": ", b":\n")


def read_answer(raw: bytes, most: int) -> JsonObject:
    """The JSON in a body, of which at most `most` bytes are decompressed. Raises Transient("malformed")."""
    try:
        found: JsonObject = from_json(raw, allow_inf_nan=False, cache_strings="keys")  # only names are often the same
    except ValueError:
        return _read_otherwise(_inflated(raw, most) if raw[:2] == b"\x1f\x8b" else raw)
    return found


def _read_otherwise(raw: bytes) -> JsonObject:
    start = raw[:200].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(_STREAM):
        return _assembled(raw)
    if start.startswith(b"<"):
        raise Transient("malformed", "the answer is a page of HTML or XML, not JSON")
    # some servers cut an answer within an emoji; the lone surrogate that is left is not JSON for pydantic
    try:
        data: JsonObject = json.loads(raw.removeprefix(b"\xef\xbb\xbf"), parse_constant=_refuse)
        if _depth(data) <= MAX_DEPTH:
            return data
    except (ValueError, RecursionError) as error:
        raise Transient("malformed", f"the answer is not JSON: {str(error)[:100]}") from None
    raise Transient("malformed", f"the answer is nested deeper than {MAX_DEPTH}")


def _inflated(raw: bytes, most: int) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        body = inflate.decompress(raw, most)
    except zlib.error as error:
        raise Transient("malformed", f"the answer is damaged gzip: {error}") from None
    if not inflate.eof:
        raise Transient("malformed", f"the answer is cut gzip, or larger than {most >> 20} MiB")
    return body


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _depth(data: Any) -> int:
    level, depth = [data], 0
    while level and depth <= MAX_DEPTH:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        depth += 1
    return depth


# --- A stream that nobody asked for -----------------------------------------------------------------------------------


def _assembled(raw: bytes) -> dict[str, Any]:
    """The answer that server-sent events of either API add up to. Raises Transient where they break off."""
    events, ended = list(_events(raw)), b"[DONE]" in raw[-200:]
    if not events:
        raise Transient("malformed", "the answer is an event stream without events")
    if failed := next((event for event in events if event.get("error")), None):
        return failed
    answer = _message(events) if "type" in events[0] and "choices" not in events[0] else _chat(events)
    if not ended and not answer.pop("ended"):
        raise Transient("truncated", "the answer is an event stream that breaks off")
    answer.pop("ended", None)
    return answer


def _events(raw: bytes) -> Iterator[dict[str, Any]]:
    for line in raw.split(b"\n"):
        name, _, data = line.strip().partition(b":")
        if name != b"data" or not (data := data.strip()) or data == b"[DONE]":
            continue
        try:
            event = from_json(data)
        except ValueError:
            raise Transient("malformed", "the answer is an event stream with an event that is not JSON") from None
        if isinstance(event, dict):
            yield event


def _chat(events: list[dict[str, Any]]) -> dict[str, Any]:
    """A chat completion, or a text completion, from its pieces."""
    texts: dict[str, list[str]] = {"content": [], "reasoning_content": [], "text": []}
    finish = usage = None
    for event in events:
        usage = event.get("usage") or usage
        for choice in (event.get("choices") or [])[:1]:
            delta = choice.get("delta") or choice.get("message") or {}
            texts["content"].append(delta.get("content") or "")
            texts["reasoning_content"].append(delta.get("reasoning_content") or delta.get("reasoning") or "")
            texts["text"].append(choice.get("text") or "")
            finish = choice.get("finish_reason") or finish
    whole = {name: "".join(parts) for name, parts in texts.items()}
    message = {"role": "assistant", "content": whole["content"], "reasoning_content": whole["reasoning_content"]}
    choice = {"text": whole["text"]} if whole["text"] else {"message": message}
    return {"choices": [choice | {"finish_reason": finish}], "usage": usage, "ended": finish is not None}


def _message(events: list[dict[str, Any]]) -> dict[str, Any]:
    """An Anthropic message from its pieces."""
    parts: dict[str, list[str]] = {"text": [], "thinking": []}
    usage, reason = dict[str, Any](), None
    for event in events:
        delta = event.get("delta") or {}
        for kind, pieces in parts.items():
            pieces.append(delta.get(kind) or "")
        usage |= (event.get("message") or {}).get("usage") or {}
        usage |= event.get("usage") or {}
        reason = delta.get("stop_reason") or reason
    blocks = [{"type": kind, kind: "".join(parts[kind])} for kind in ("thinking", "text") if any(parts[kind])]
    return {"type": "message", "content": blocks, "stop_reason": reason, "usage": usage, "ended": reason is not None}
