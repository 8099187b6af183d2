"""Log-probabilities of given continuations from an endpoint, which gets them as part of the prompt.

For `plain` requests `/completions` with `echo` (vLLM, SGLang, Together); for chats vLLM's `prompt_logprobs`. The tokens
of the continuation are found from the end of the prompt, because servers differ in which special tokens offsets count.

Left out on purpose: an estimate from the top few alternatives. What is not among them has no known probability.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cai.backends.http.client import Post
from cai.backends.http.completion import valid_logprobs
from cai.backends.http.endpoint import OpenAIEndpoint
from cai.core.errors import Mistake, Permanent
from cai.core.types import JsonObject, Request, Score, Usage
from cai.data.messages import answer_dicts, message_dicts

Read = tuple[list[str], list[float | None]]
"""The tokens of a prompt as text, and the log-probability of each; the first has none."""


async def score_by_prompt(
    post: Post, options: OpenAIEndpoint, request: Request, continuations: Sequence[str]
) -> tuple[Score, ...]:
    """Each continuation's score. Raises Mistake if the endpoint does not return log-probabilities of a prompt."""
    put, read = (_text, _read_text) if request.plain else (_chat, _read_chat)

    async def one(continuation: str) -> Score:
        if not continuation:
            raise Permanent("empty_continuation", "there is nothing to score")
        path, body = put(options.model, request, continuation)

        def scored(answer: Any, usage: Usage) -> Score | None:
            found = read(answer)
            return None if found is None else replace(_tail(*found, continuation), usage=usage)

        found = await post(path, options.filled(body), scored)
        if found is None:
            what = "/completions ignores `echo`" if request.plain else "/chat/completions ignores `prompt_logprobs`"
            fix = "use vLLM, or the transformers backend"
            raise Mistake(options.place, f"returns no log-probabilities of a prompt ({what})", fix)
        return found

    return tuple(await asyncio.gather(*map(one, continuations)))


def _text(model: str, request: Request, continuation: str) -> tuple[str, JsonObject]:
    # one token, which is not read: not every server accepts 0
    text = request.messages[0].content + continuation
    body = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
    return "/completions", body


def _chat(model: str, request: Request, continuation: str) -> tuple[str, JsonObject]:
    body = {
        "model": model,
        "messages": message_dicts(request.messages) + answer_dicts(continuation),
        "max_tokens": 1,
        "temperature": 0.0,
        "add_generation_prompt": False,
        "continue_final_message": True,
        "prompt_logprobs": 0,
    }
    return "/chat/completions", body


def _read_text(answer: Any) -> Read | None:
    found, length = answer["choices"][0].get("logprobs") or {}, answer["usage"]["prompt_tokens"]
    tokens, logprobs = found.get("tokens") or [], found.get("token_logprobs") or []
    return (tokens[:length], logprobs[:length]) if 0 < length <= len(tokens) == len(logprobs) else None


def _read_chat(answer: Any) -> Read | None:
    if not (found := answer.get("prompt_logprobs")):
        return None
    firsts = [next(iter(token.values())) if token else {} for token in found]
    return [str(first.get("decoded_token", "")) for first in firsts], [first.get("logprob") for first in firsts]


def _tail(tokens: list[str], logprobs: list[float | None], continuation: str) -> Score:
    wanted = (continuation, continuation.strip())  # some chat templates strip a turn
    text = ""
    for token_count, token in enumerate(reversed(tokens), 1):
        text = token + text
        values = [value for value in logprobs[-token_count:] if value is not None]
        if text in wanted and len(values) == token_count:
            return Score(sum(valid_logprobs(values)), token_count)
        if len(text) > len(continuation):
            break
    raise Permanent("tokens", f"no token begins where {continuation[:40]!r} does")
