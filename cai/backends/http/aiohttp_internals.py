"""The internals of aiohttp that `fast_post` and `fast_response` use, and whether the installed aiohttp still has them.

aiohttp does not promise to keep them. If one is missing or takes other arguments, requests go through the public
`ClientSession` instead. Answers and errors are the same; a request takes about twice the CPU time, and a connection of
its own.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from yarl import URL

if TYPE_CHECKING:
    from cai.backends.http.fast_post import FastPost

log = logging.getLogger("cai")

USED: dict[str, tuple[str, ...]] = {
    "client_reqrep:ClientRequest": ("method", "url", "headers", "loop"),
    "connector:BaseConnector.connect": ("req", "traces", "timeout"),
    "connector:Connection.protocol": (),
    "connector:Connection.transport": (),
    "connector:Connection.close": (),
    "client_proto:ResponseHandler.set_response_params": ("read_until_eof", "auto_decompress", "read_timeout"),
    "client_proto:ResponseHandler.start_timeout": (),
    "client_proto:ResponseHandler.read": (),
    "client_proto:ResponseHandler.is_connected": (),
    "client_proto:ResponseHandler.should_close": (),
    "client_proto:ResponseHandler.data_received": ("data",),
    "client_proto:ResponseHandler.eof_received": (),
    "client_proto:ResponseHandler.connection_lost": ("exc",),
    "client_proto:ResponseHandler.pause_writing": (),
    "client_proto:ResponseHandler.resume_writing": (),
    "http_parser:RawResponseMessage.code": (),
    "http_parser:RawResponseMessage.headers": (),
    "streams:StreamReader.is_eof": (),
    "streams:StreamReader.total_bytes": (),
    "streams:StreamReader.read_nowait": (),
}
"""`module:name` within aiohttp -> the names of the parameters that are given."""


def missing_internals() -> list[str]:
    """What of USED the installed aiohttp lacks."""
    missing = [name for name, parameters in USED.items() if not _exists(name, parameters)]
    return missing or ([] if _has_headers() else ["client_reqrep:ClientRequest.headers"])


@cache
def fast_post_class() -> type[FastPost] | None:
    """FastPost, or None if aiohttp lacks what it needs; looked up once per process."""
    if missing := missing_internals():
        log.warning("aiohttp has changed (%s): requests take a slower way", ", ".join(missing))
        return None
    from cai.backends.http.fast_post import FastPost  # it imports the internals, so only if they are there

    return FastPost


def _exists(name: str, parameters: tuple[str, ...]) -> bool:
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(f"aiohttp.{module}")
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return not parameters or set(parameters) <= set(inspect.signature(found).parameters)


def _has_headers() -> bool:
    """Whether a request has its headers once it is made: an attribute of the object, which no class shows."""
    from aiohttp.client_reqrep import ClientRequest

    loop = asyncio.new_event_loop()
    try:
        return "Host" in getattr(ClientRequest("POST", URL("http://localhost"), headers={}, loop=loop), "headers", ())
    finally:
        loop.close()
