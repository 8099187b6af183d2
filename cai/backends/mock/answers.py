"""The answers of the mock server: words drawn by the digest of the request, in the formats of both APIs.

Every answer ends in the first eight digits of that digest, so that a row can be traced to its request. The text has no
meaning; a critique ends in a verdict if the request asks for one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from cai.core.types import JsonObject

WORDS = (
    "amber", "anchor", "autumn", "bakery", "barley", "basket", "beacon", "birch", "bottle", "bridge", "bronze",
    "button", "cabin", "candle", "canvas", "carpet", "cedar", "cellar", "chalk", "cherry", "clover", "cobble",
    "copper", "corner", "cotton", "crayon", "cricket", "curtain", "daisy", "dinner", "donkey", "drawer", "echo",
    "ember", "engine", "fabric", "feather", "fennel", "ferry", "fiddle", "forest", "fossil", "garden", "ginger",
    "glacier", "goblet", "gravel", "hammer", "harbour", "hazel", "helmet", "island", "ivory", "jacket", "jasmine",
    "kettle", "kitchen", "ladder", "lantern", "lemon", "lilac", "linen", "marble", "meadow",
)  # fmt: skip
_TOKEN = re.compile(r"\s*\S+")


def request_digest(path: str, body: bytes) -> bytes:
    """The digest of a request: SHA-256 of its path and its body in compact JSON."""
    return hashlib.sha256(path.encode() + b"\n" + body).digest()


def answer_text(key: bytes, body: JsonObject) -> tuple[str, str, int]:
    """Text, finish (stop or length) and number of words of the answer to `body`."""
    most = body.get("max_tokens") or body.get("max_completion_tokens") or 512
    drawn = hashlib.shake_128(key).digest(21 + key[0] % 40)
    words = [WORDS[byte & 63] for byte in drawn[1:]]
    if len(words) > most:
        return " ".join(words[:most]), "length", most
    text = f"{' '.join(words).capitalize()} [{key.hex()[:8]}]."
    if "VERDICT" in str(body.get("system") or body.get("messages", [{}])[0].get("content")):
        text += f"\nVERDICT: {'KEEP' if key[1] < 16 else 'REVISE'}"
    return text, "stop", len(words)


def prompt_length(body: JsonObject) -> int:
    """Characters in all texts of the request."""
    return sum(map(len, _turns(body)))


def chat_completion(key: bytes, body: JsonObject, text: str, finish: str, words: int) -> JsonObject:
    """An OpenAI chat completion."""
    message = {"role": "assistant", "content": text}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    if body.get("logprobs"):
        tokens = [{"token": token, "logprob": token_logprob(token)} for token in _TOKEN.findall(text)]
        choice["logprobs"] = {"content": tokens}
    answer = _openai(key, body, "chat.completion", choice, words)
    if body.get("prompt_logprobs") is not None:
        read = [{"0": {"logprob": token_logprob(token), "decoded_token": token}} for token in _tokens(body)]
        answer["prompt_logprobs"] = [None, *read[1:]]
    return answer


def text_completion(key: bytes, body: JsonObject, text: str, finish: str, words: int) -> JsonObject:
    """An OpenAI text completion; with `echo`, its tokens include the prompt's."""
    choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    if body.get("logprobs") is not None:
        tokens = [*(_tokens(body) if body.get("echo") else []), *_TOKEN.findall(text)]
        values = [None if n == 0 and body.get("echo") else token_logprob(token) for n, token in enumerate(tokens)]
        choice["logprobs"] = {"tokens": tokens, "token_logprobs": values}
    return _openai(key, body, "text_completion", choice, words)


def anthropic_message(key: bytes, body: JsonObject, text: str, finish: str, words: int) -> JsonObject:
    """An Anthropic message."""
    return {
        "id": f"msg_{key.hex()[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn" if finish == "stop" else "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": prompt_length(body) // 4, "output_tokens": words},
    }


def token_logprob(token: str) -> float:
    """The invented log-probability of a token, the same wherever it occurs."""
    return -(hashlib.sha256(token.encode()).digest()[0] + 1) / 64


def _turns(body: JsonObject) -> list[str]:
    contents = [turn["content"] for turn in body.get("messages", ())]
    return [text for text in (body.get("system"), body.get("prompt"), *contents) if isinstance(text, str)]


def _tokens(body: JsonObject) -> list[str]:
    # a token before each turn, as in chat templates: no token spans two turns
    return [token for turn in _turns(body) for token in ("<turn>", *_TOKEN.findall(turn))]


def _openai(key: bytes, body: JsonObject, kind: str, choice: JsonObject, words: int) -> JsonObject:
    asked = len(_tokens(body)) if body.get("echo") else prompt_length(body) // 4
    return {
        "id": f"mock-{key.hex()[:24]}",
        "object": kind,
        "created": 0,
        "model": body.get("model"),
        "choices": [choice],
        "usage": {"prompt_tokens": asked, "completion_tokens": words, "total_tokens": asked + words},
    }


Shape = Callable[[bytes, dict[str, Any], str, str, int], dict[str, Any]]
"""Digest and body of a request, text, finish and number of words of its answer -> the answer's JSON."""
SHAPES: dict[str, Shape] = {
    "/v1/chat/completions": chat_completion,
    "/v1/completions": text_completion,
    "/v1/messages": anthropic_message,
}
