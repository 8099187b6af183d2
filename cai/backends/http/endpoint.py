"""The options of an endpoint: its address, the key, rates and time limits. They are read to list backends.

The key is named by its environment variable and read when the model is opened. A key written into a recipe by mistake
is refused with a message that does not repeat it.

Left out on purpose: proxies, client certificates and extra headers; use a local gateway for these.
"""

from __future__ import annotations

import os
import re
from typing import Literal, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field, JsonValue, field_validator

from cai.core.config import Knobs
from cai.core.errors import Mistake
from cai.core.types import JsonObject

RESERVED = ("model", "messages", "prompt", "system", "stream", "n")
"""Fields of a request body that `extra_body` may not set: cai writes them, or cannot read the answers they cause."""
_KEY_NAME = re.compile(r"api.?key|secret|password|authorization|bearer|access.?token", re.IGNORECASE)
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


class Endpoint(Knobs):
    """The options that all endpoints share."""

    model: str = Field(min_length=1)
    """The model's name as the endpoint knows it."""
    base_url: str | tuple[str, ...]
    """Up to and including the version, such as http://localhost:8000/v1. A list names replicas of one server; the first
    stands for all of them in the journal, so that others can join or leave without asking anything again."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key, never the key. None: the vendor's usual one at the
    vendor's address, no key elsewhere."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields added to every request body as they are; null removes a field that cai would send."""
    concurrency: int = Field(256, ge=1, le=4096)
    """The most requests in flight; how many the endpoint serves is found by trying."""
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    """Input and output together, estimated before a request and corrected after it."""
    timeout: float = Field(600.0, gt=0)
    """Seconds for one request, from its start to the last byte of its answer."""
    read_timeout: float | None = Field(None, gt=0)
    """Seconds without a byte. None: no limit of its own, because an endpoint sends nothing while it generates."""
    connect_timeout: float = Field(10.0, gt=0)
    temperature: bool = True
    """Send temperature and top_p. Turn it off for a model that takes only its own; the recipe's then do nothing."""
    wait: bool = False
    """Wait for a limit that lasts longer than ten minutes, such as one of a day, and do not stop (`cai run --wait`)."""
    system: Literal["fold", "send"] | None = None
    """A system message is put at the head of the first user turn (`fold`) or sent as it is (`send`). None: sent, and
    folded from the moment when the endpoint refuses the system role, with a note."""
    batch: str | None = None
    """Use the vendor's batch API, at half the price and hours later: the folder for notes of submitted batches, which
    `cai run --batch` sets to `batches` beside the runs."""
    batch_poll: float = Field(30.0, gt=0)
    """Seconds between polls of a batch."""

    @field_validator("base_url")
    @classmethod
    def _are_addresses(cls, urls: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(urls, str):
            return _address(urls)
        if not urls or len(set(urls)) < len(urls):
            raise ValueError("is an empty list, or names one address twice")
        return tuple(map(_address, urls)) if len(urls) > 1 else _address(urls[0])

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not _NAME.fullmatch(name):
            fix = "export the key as OPENAI_API_KEY or under another name, and write that name here"
            raise Mistake(
                "recipe: api_key_env", "is not the name of an environment variable (is it the key itself?)", fix
            )
        return name

    @field_validator("extra_body")
    @classmethod
    def _is_not_reserved(cls, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(set(body) & set(RESERVED)):
            raise ValueError(f"may not set {', '.join(taken)}")
        if named := next((name for name in body if _KEY_NAME.search(name)), ""):
            fix = "a key in a request body is logged by servers: name its environment variable, api_key_env"
            raise Mistake(f"recipe: extra_body.{named}", "seems to hold a key", fix)
        return body

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URL of each replica."""
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    def at(self, url: str) -> Self:
        """The endpoint of one replica."""
        return self.model_copy(update={"base_url": url})

    @property
    def address(self) -> SplitResult:
        """The (first) base URL in parts."""
        return urlsplit(self.urls[0])

    @property
    def place(self) -> str:
        """The (first) base URL without its query, for identities and error messages."""
        return self.urls[0].partition("?")[0]

    def filled(self, body: JsonObject) -> JsonObject:
        """A request body with the extra fields."""
        body |= self.extra_body
        return {name: value for name, value in body.items() if value is not None}

    def key(self, vendor: str, variable: str) -> str:
        """The key, empty if none is to be sent; `variable` holds it at the `vendor`'s own host. Raises Mistake."""
        name = self.api_key_env or (variable if self.address.hostname == vendor else "")
        if not name:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise Mistake("recipe: api_key_env", f"the environment variable {name} is not set", f"export {name}=...")
        if not (key.isascii() and key.isprintable()):
            raise Mistake("recipe: api_key_env", f"{name} contains characters that no key has", "copy the key again")
        return key


class OpenAIEndpoint(Endpoint):
    """The options of an OpenAI-compatible endpoint."""

    base_url: str | tuple[str, ...] = "https://api.openai.com/v1"
    """Up to and including the version, such as http://localhost:8000/v1."""
    seed: bool = True
    """Send the seed. Turn it off for an endpoint that refuses it; its answers then differ from run to run."""
    logprobs: bool = False
    """Ask for the log-probability of every generated token, and keep it."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The endpoint's name for the token limit; OpenAI's reasoning models take only the longer one."""


class AnthropicEndpoint(Endpoint):
    """The options of Anthropic's Messages API."""

    base_url: str | tuple[str, ...] = "https://api.anthropic.com/v1"
    """Up to and including the version."""


def _address(url: str) -> str:
    """A base URL as it is used. Raises Mistake for one with a key in it, ValueError for what is none."""
    parts = urlsplit(url)
    if parts.username or parts.password or {name for name, _ in parse_qsl(parts.query)} - {"api-version"}:
        # a Mistake, not a ValueError: pydantic would repeat the value
        raise Mistake("recipe: base_url", "seems to contain a key", "name its environment variable: api_key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("is not an http:// or https:// address")
    return url.rstrip("/")
