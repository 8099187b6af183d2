"""The batch endpoints of the mock server: OpenAI's files and batches, Anthropic's message batches.

A batch ends after `batch_seconds`. Its results are in the order of their digests, which differs from the order of the
requests; with the configured faults some have failed, have expired or occur twice.

Left out on purpose: limits on size, and results that are deleted after a month.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic_core import from_json, to_json

from cai.backends.mock.answers import SHAPES
from cai.backends.mock.faults import error_response
from cai.backends.mock.state import Mock

Line = dict[str, Any]


@dataclass(slots=True)
class Batch:
    """A batch of either API: the outcome of each request, by custom id."""

    id: str
    path: str
    created: float
    input: str = ""
    cancelled: bool = False
    results: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Custom id, outcome (succeeded, errored, expired), and the answer."""

    def count(self, outcome: str) -> int:
        return sum(found == outcome for _, found, _ in self.results)


class MockBatchApi:
    """Accepts batches and returns their results."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, Batch] = {}

    async def put_file(self, request: web.Request) -> web.Response:
        """POST /v1/files."""
        if refused := self._mock.refuses(request, {"model": self._mock.options.model}):
            return refused
        form = await request.post()
        upload = form.get("file")
        if not isinstance(upload, web.FileField):
            return error_response(400, "There is no file in the form")
        return web.json_response(self._file(upload.file.read(), str(form.get("purpose"))))

    async def get_file(self, request: web.Request) -> web.Response:
        """GET /v1/files/{id}/content."""
        content = self._files.get(request.match_info["id"])
        return error_response(404, "No such file") if content is None else web.Response(body=content)

    async def put_batch(self, request: web.Request) -> web.Response:
        """POST /v1/batches."""
        body = await request.json()
        content, path = self._files.get(body.get("input_file_id")), body.get("endpoint")
        if content is None or path not in SHAPES:
            return error_response(400, "There is no such input file or endpoint")
        lines = [from_json(line) for line in content.splitlines() if line.strip()]
        batch = self._batch("batch", path, [(line["custom_id"], line["body"]) for line in lines])
        batch.input = body["input_file_id"]
        return web.json_response(self._openai(batch))

    async def get_batch(self, request: web.Request) -> web.Response:
        """GET /v1/batches/{id}."""
        batch = self._batches.get(request.match_info["id"])
        return error_response(404, "No such batch") if batch is None else web.json_response(self._openai(batch))

    async def cancel_batch(self, request: web.Request) -> web.Response:
        """POST /v1/batches/{id}/cancel."""
        if batch := self._batches.get(request.match_info["id"]):
            batch.cancelled = True
        return await self.get_batch(request)

    async def put_messages(self, request: web.Request) -> web.Response:
        """POST /v1/messages/batches."""
        body = await request.json()
        if refused := self._mock.refuses(request, {"model": self._mock.options.model}):
            return refused
        asked = [(line["custom_id"], line["params"]) for line in body["requests"]]
        return web.json_response(self._anthropic(self._batch("msgbatch", "/v1/messages", asked), request))

    async def get_messages(self, request: web.Request) -> web.Response:
        """GET /v1/messages/batches/{id}."""
        batch = self._batches.get(request.match_info["id"])
        return (
            error_response(404, "No such batch")
            if batch is None
            else web.json_response(self._anthropic(batch, request))
        )

    async def cancel_messages(self, request: web.Request) -> web.Response:
        """POST /v1/messages/batches/{id}/cancel."""
        if batch := self._batches.get(request.match_info["id"]):
            batch.cancelled = True
        return await self.get_messages(request)

    async def get_results(self, request: web.Request) -> web.Response:
        """GET /v1/messages/batches/{id}/results."""
        batch = self._batches.get(request.match_info["id"])
        if batch is None or not self._done(batch):
            return error_response(404, "No such results")
        lines = (to_json({"custom_id": id, "result": _result(end, answer)}) for id, end, answer in batch.results)
        return web.Response(body=b"\n".join(lines), content_type="application/x-jsonl")

    def _batch(self, kind: str, path: str, asked: list[tuple[str, Line]]) -> Batch:
        id = f"{kind}_{hashlib.sha256(f'{len(self._batches)} {asked}'.encode()).hexdigest()[:24]}"
        batch = self._batches[id] = Batch(id, path, time.time())
        for custom, body in sorted(asked, key=lambda line: hashlib.sha256(to_json(line[1])).digest()):
            fault, answer = self._mock.reply(path, body, to_json(body), batch=True)
            outcome = {"batch_error": "errored", "batch_expired": "expired"}.get(str(fault), "succeeded")
            batch.results += [(custom, outcome, answer)] * (2 if fault == "batch_twice" else 1)
        return batch

    def _done(self, batch: Batch) -> bool:
        return batch.cancelled or time.time() - batch.created >= self._mock.options.batch_seconds

    def _file(self, content: bytes, purpose: str) -> Line:
        id = f"file-{hashlib.sha256(content).hexdigest()[:24]}"
        self._files[id] = content
        return {"id": id, "object": "file", "bytes": len(content), "purpose": purpose, "status": "processed"}

    def _openai(self, batch: Batch) -> Line:
        done, expired = self._done(batch), batch.count("expired")
        good, bad = batch.count("succeeded"), batch.count("errored")
        status = "cancelled" if batch.cancelled else "expired" if expired else "completed"
        files = {}
        for name, wanted in (("output_file_id", ("succeeded",)), ("error_file_id", ("errored", "expired"))):
            lines = [to_json(_line(*result)) for result in batch.results if result[1] in wanted]
            files[name] = self._file(b"\n".join(lines), "batch_output")["id"] if done and lines else None
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.path,
            "input_file_id": batch.input,
            "status": status if done else "in_progress",
            "created_at": int(batch.created),
            "request_counts": {"total": good + bad + expired, "completed": good * done, "failed": bad * done},
            **files,
        }

    def _anthropic(self, batch: Batch, request: web.Request) -> Line:
        done = self._done(batch)
        counts = {outcome: batch.count(outcome) * done for outcome in ("succeeded", "errored", "expired")}
        results = f"{request.scheme}://{request.host}/v1/messages/batches/{batch.id}/results"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if done else "in_progress",
            "request_counts": {"processing": 0 if done else len(batch.results), "canceled": 0, **counts},
            "results_url": results if done else None,
        }


def _line(id: str, outcome: str, answer: bytes) -> Line:
    """A line of OpenAI's output or error file."""
    if outcome == "expired":
        error = {"code": "batch_expired", "message": "This request could not be executed before the batch expired."}
        return {"custom_id": id, "response": None, "error": error}
    failed = {"error": {"message": "The server had an error", "type": "server_error"}}
    good = outcome == "succeeded"
    response = {"status_code": 200 if good else 500, "body": from_json(answer) if good else failed}
    return {"custom_id": id, "response": response, "error": None}


def _result(outcome: str, answer: bytes) -> Line:
    """One request in Anthropic's results."""
    if outcome == "succeeded":
        return {"type": outcome, "message": from_json(answer)}
    error = {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}
    return {"type": outcome, "error": error} if outcome == "errored" else {"type": outcome}


def add_batch_routes(app: web.Application, mock: Mock) -> None:
    """Add the routes of both batch APIs to `app`."""
    api, routes = MockBatchApi(mock), app.router
    routes.add_post("/v1/files", api.put_file)
    routes.add_get("/v1/files/{id}/content", api.get_file)
    routes.add_post("/v1/batches", api.put_batch)
    routes.add_get("/v1/batches/{id}", api.get_batch)
    routes.add_post("/v1/batches/{id}/cancel", api.cancel_batch)
    routes.add_post("/v1/messages/batches", api.put_messages)
    routes.add_get("/v1/messages/batches/{id}", api.get_messages)
    routes.add_post("/v1/messages/batches/{id}/cancel", api.cancel_messages)
    routes.add_get("/v1/messages/batches/{id}/results", api.get_results)
