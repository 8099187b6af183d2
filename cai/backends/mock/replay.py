"""Recorded answers that the mock server gives in place of its own: what a real endpoint once answered.

A file holds `{"status": 429, "headers": {...}, "body": ...}`; a body that is a text is sent as it is, others as JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import Field, JsonValue
from pydantic_core import to_json

from cai.core.config import Knobs, parse_options, read_yaml


class Recorded(Knobs):
    """An answer of an endpoint."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: dict[str, str] = Field(default_factory=dict)
    body: JsonValue = None

    def response(self) -> web.Response:
        """The answer, byte for byte the same each time."""
        raw = self.body.encode() if isinstance(self.body, str) else to_json(self.body)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
        return web.Response(body=raw, status=self.status, headers=headers)


_OF_THE_CONNECTION = ("content-length", "transfer-encoding", "connection", "content-encoding")


def read_recorded(file: Path) -> Recorded:
    """The answer in a JSON or YAML file. Raises Mistake."""
    return parse_options(read_yaml(file), Recorded)
