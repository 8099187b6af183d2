"""Where batches are handed in and fetched: OpenAI's files and batches, Anthropic's message batches.

Left out on purpose: cancelling. A batch that is not wanted any more costs what it costs; its answers are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from pydantic_core import from_json, to_json

from cai.backends.http.connection import Connection
from cai.core.errors import Refused

MOST = 1 << 30
"""Bytes of a results file."""
BatchRequest = tuple[str, dict[str, Any]]
"""Custom id and body."""


def custom_id(path: str, body: dict[str, Any], seed: int) -> str:
    """What names a question in a file of them; the seed too, since two samples of one prompt may be put alike."""
    return hashlib.sha256(to_json((path, body, seed))).hexdigest()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one question: its answer, or why there is none."""

    id: str
    answer: Any = None
    error: str = ""


class BatchApi(Protocol):
    """One vendor's batches."""

    async def hand_in(self, path: str, questions: Sequence[BatchRequest]) -> str:
        """Send a batch; its id. Raises CallFailed, Refused."""
        ...

    async def done(self, id: str) -> tuple[str, ...] | None:
        """Where the results are, once the batch has ended in whatever way; None while it runs."""
        ...

    async def results(self, where: str) -> Iterator[BatchResult]:
        """The results at one of those places: in any order, some missing, some twice."""
        ...


def batch_line(id: str, path: str, body: dict[str, Any]) -> bytes:
    """A question as OpenAI's batch files have it; `vllm run-batch` and others read the same."""
    return to_json({"custom_id": id, "method": "POST", "url": f"/v1{path}", "body": body}) + b"\n"


def batch_result(said: Any) -> BatchResult:
    """A line of such a batch's results."""
    response = said.get("response")
    if response and response.get("status_code", 200) == 200 and not said.get("error"):
        return BatchResult(said["custom_id"], response["body"])
    why = said.get("error") or (response or {}).get("body") or "no answer"
    return BatchResult(said["custom_id"], error=str(why)[:300])


class OpenAIBatchApi:
    """Files and batches, as OpenAI and those who follow it have them."""

    def __init__(self, wire: Connection) -> None:
        self._wire = wire

    async def hand_in(self, path: str, questions: Sequence[BatchRequest]) -> str:
        lines = (batch_line(id, path, body) for id, body in questions)
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", b"".join(lines), filename="requests.jsonl", content_type="application/jsonl")
        file = from_json((await self._wire.fetch("POST", "/files", form))[0])
        batch = {"input_file_id": file["id"], "endpoint": f"/v1{path}", "completion_window": "24h"}
        return str((await self._wire.post("/batches", to_json(batch)))["id"])

    async def done(self, id: str) -> tuple[str, ...] | None:
        said = from_json((await self._wire.fetch("GET", f"/batches/{id}"))[0])
        if said["status"] == "failed":
            raise Refused(f"batch {id}", f"was refused: {str(said.get('errors'))[:300]}", "mend what it names")
        if said["status"] not in ("completed", "expired", "cancelled"):
            return None
        return tuple(said[file] for file in ("output_file_id", "error_file_id") if said.get(file))

    async def results(self, where: str) -> Iterator[BatchResult]:
        raw, _ = await self._wire.fetch("GET", f"/files/{where}/content", most=MOST)
        return (batch_result(from_json(batch_line)) for batch_line in raw.splitlines() if batch_line.strip())


class AnthropicBatchApi:
    """Message batches."""

    def __init__(self, wire: Connection) -> None:
        self._wire = wire

    async def hand_in(self, path: str, questions: Sequence[BatchRequest]) -> str:
        lines = [{"custom_id": id, "params": body} for id, body in questions]
        return str((await self._wire.post(f"{path}/batches", to_json({"requests": lines})))["id"])

    async def done(self, id: str) -> tuple[str, ...] | None:
        said = from_json((await self._wire.fetch("GET", f"/messages/batches/{id}"))[0])
        return (id,) if said["processing_status"] == "ended" else None

    async def results(self, where: str) -> Iterator[BatchResult]:
        # the path, not the results_url that the answer names: a key goes only where the recipe sends it
        raw, _ = await self._wire.fetch("GET", f"/messages/batches/{where}/results", most=MOST)
        return (self._result(from_json(batch_line)) for batch_line in raw.splitlines() if batch_line.strip())

    def _result(self, batch_line: Any) -> BatchResult:
        batch_result = batch_line["result"]
        if batch_result["type"] == "succeeded":
            return BatchResult(batch_line["custom_id"], batch_result["message"])
        return BatchResult(batch_line["custom_id"], error=str(batch_result.get("error") or batch_result["type"])[:300])
