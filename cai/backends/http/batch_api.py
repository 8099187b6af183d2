"""The batch APIs of OpenAI (files and batches) and Anthropic (message batches).

Left out on purpose: cancelling. A batch that is no longer wanted costs the same, and its answers are kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from pydantic_core import from_json, to_json

from cai.backends.http.connection import Connection
from cai.core.errors import Permanent, Refused, Transient
from cai.core.types import JsonObject

log = logging.getLogger("cai")

MOST = 1 << 30
"""Bytes of a results file."""
BatchRequest = tuple[str, dict[str, Any]]
"""Custom id and body."""
_MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)
"""What reading JSON of an unexpected shape raises."""


def custom_id(path: str, body: JsonObject, seed: int) -> str:
    """The id of a request in a batch. The seed is in it too: two samples of one prompt may have the same body."""
    return hashlib.sha256(to_json((path, body, seed))).hexdigest()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outcome of one request: its answer, or why there is none."""

    id: str
    answer: Any = None
    error: str = ""


class BatchApi(Protocol):
    """The batch API of one vendor."""

    async def submit(self, path: str, requests: Sequence[BatchRequest]) -> str:
        """Send a batch and return its id. Raises CallFailed, Refused."""
        ...

    async def result_places(self, id: str) -> tuple[str, ...] | None:
        """Where the results are once the batch has ended, however it ended; None while it runs. Raises the same."""
        ...

    async def results(self, place: str) -> Iterator[BatchResult]:
        """The results at one of those places: in any order, some missing, some twice. Raises the same."""
        ...


def batch_line(id: str, path: str, body: JsonObject) -> bytes:
    """A request as OpenAI's batch files have it; `vllm run-batch` and others read the same."""
    return to_json({"custom_id": id, "method": "POST", "url": f"/v1{path}", "body": body}) + b"\n"


def batch_result(line: JsonObject) -> BatchResult:
    """A line of the results of such a batch. Raises KeyError, TypeError and their like for anything else."""
    response = line.get("response")
    if response and response.get("status_code", 200) == 200 and not line.get("error"):
        return BatchResult(line["custom_id"], response["body"])
    why = line.get("error") or (response or {}).get("body") or "no answer"
    return BatchResult(line["custom_id"], error=str(why)[:300])


class OpenAIBatchApi:
    """Files and batches, as OpenAI and compatible vendors have them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def submit(self, path: str, requests: Sequence[BatchRequest]) -> str:
        lines = (batch_line(id, path, body) for id, body in requests)
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", b"".join(lines), filename="requests.jsonl", content_type="application/jsonl")
        raw, _ = await self._connection.fetch("POST", "/files", form)
        file = _read("the uploaded file", raw, lambda answer: answer["id"])
        batch = {"input_file_id": file, "endpoint": f"/v1{path}", "completion_window": "24h"}
        return _submitted(await self._connection.post("/batches", to_json(batch)))

    async def result_places(self, id: str) -> tuple[str, ...] | None:
        raw, _ = await self._connection.fetch("GET", f"/batches/{id}")
        answer, status = _read(f"batch {id}", raw, lambda answer: (answer, answer["status"]))
        if status == "failed":
            raise Refused(f"batch {id}", f"was refused: {str(answer.get('errors'))[:300]}", "fix what it names")
        if status not in ("completed", "expired", "cancelled"):
            return None
        return tuple(str(answer[file]) for file in ("output_file_id", "error_file_id") if answer.get(file))

    async def results(self, place: str) -> Iterator[BatchResult]:
        raw, _ = await self._connection.fetch("GET", f"/files/{place}/content", most=MOST)
        return _results(place, raw, batch_result)


class AnthropicBatchApi:
    """Message batches."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def submit(self, path: str, requests: Sequence[BatchRequest]) -> str:
        lines = [{"custom_id": id, "params": body} for id, body in requests]
        return _submitted(await self._connection.post(f"{path}/batches", to_json({"requests": lines})))

    async def result_places(self, id: str) -> tuple[str, ...] | None:
        raw, _ = await self._connection.fetch("GET", f"/messages/batches/{id}")
        status = _read(f"batch {id}", raw, lambda answer: answer["processing_status"])
        return (id,) if status == "ended" else None

    async def results(self, place: str) -> Iterator[BatchResult]:
        # not the results_url in the answer: the key is sent only to the address in the recipe
        raw, _ = await self._connection.fetch("GET", f"/messages/batches/{place}/results", most=MOST)
        return _results(place, raw, _message_result)


def _message_result(line: Any) -> BatchResult:
    result = line["result"]
    if result["type"] == "succeeded":
        return BatchResult(line["custom_id"], result["message"])
    return BatchResult(line["custom_id"], error=str(result.get("error") or result["type"])[:300])


def _read(what: str, raw: bytes, part: Callable[[Any], Any]) -> Any:
    try:
        return part(from_json(raw))
    except _MALFORMED as error:
        raise Transient(
            "malformed", f"{what}: the answer cannot be read: {type(error).__name__} {error}"[:200]
        ) from None


def _submitted(answer: Any) -> str:
    try:
        return str(answer["id"])
    except _MALFORMED:  # not Transient: asking again could pay for a second batch
        what = "the answer to a batch has no id; look at the vendor's page whether the batch runs"
        raise Permanent("malformed", what) from None


def _results(place: str, raw: bytes, read: Callable[[Any], BatchResult]) -> Iterator[BatchResult]:
    """The lines that can be read. What a damaged one held counts as missing, and is asked again in another batch."""
    damaged = 0
    for line in raw.splitlines():
        if not line.strip():
            continue
        try:
            result = read(from_json(line))
            damaged += not isinstance(result.id, str)
            if isinstance(result.id, str):
                yield result
        except _MALFORMED:
            damaged += 1
    if damaged:
        log.warning("%d lines of the results %s cannot be read: what they held is asked again", damaged, place)
