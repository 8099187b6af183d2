"""A model whose answers come from a Python function or a file. It drives the tests and the examples.

A file holds one JSON object a line, `{"contains": "...", "answer": "..."}`; the first line whose text occurs in the
last message answers, and a line without `contains` answers everything. Usage counts words, since there are no tokens.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai.core import plugins
from cai.core.config import Knobs
from cai.core.errors import Mistake, Permanent
from cai.core.plugin_types import Backend
from cai.core.types import Completion, Request, Score, Usage

Script = Callable[[Request], str | Completion]
Scorer = Callable[[Request, str], float]
"""The log-probability of a continuation."""


class Options(Knobs):
    """The options of `backend: scripted`."""

    script: str
    """`pkg.module:function` (Request -> text or Completion), or a JSONL file."""
    scorer: str | None = None
    """`pkg.module:function` (Request, continuation -> log-probability); without it there are none."""
    seconds: float = 0.0
    """How long each answer takes."""
    concurrency: int = 64
    """Requests in flight."""


class Scripted:
    """A Model that answers by calling `script`. The script may raise CallFailed, or return a whole Completion."""

    def __init__(
        self, script: Script, *, scorer: Scorer | None = None, name: str = "script", source: str = "",
        seconds: float = 0.0, concurrency: int = 64,
    ) -> None:  # fmt: skip
        """`source` is a digest of the script's source."""
        self._script, self._scorer, self._seconds = script, scorer, seconds
        identity = {"engine": "scripted", "model": name}
        self.identity: Mapping[str, str] = identity | ({"source": source} if source else {})
        self.concurrency = concurrency

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(self._seconds)
        answer = self._script(request)
        if isinstance(answer, Completion):
            return answer
        read = sum(len(message.content.split()) for message in request.messages)
        return Completion(answer, usage=Usage(read, len(answer.split())))

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        if self._scorer is None:
            fix = "name a `scorer`, or use a judge that needs no log-probabilities: sampled"
            raise Mistake("backend: scripted", "a script gives no log-probabilities", fix)
        await asyncio.sleep(self._seconds)
        read = sum(len(message.content.split()) for message in request.messages)
        return tuple(Score(self._scorer(request, text), len(text.split()) or 1, read) for text in continuations)

    def status(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        return None


def scripted(script: Script, scorer: Scorer | None = None) -> Scripted:
    """A Model from a function, for tests and notebooks."""
    return Scripted(script, scorer=scorer)


def open_scripted(options: Options) -> Scripted:
    """The Model that a recipe asks for. Raises Mistake if the script does not exist or is not a script."""
    if ":" in options.script and not Path(options.script).exists():
        script, name = _function(options.script), options.script
        source = _source_digest(script)
    else:
        (script, name), source = _from_file(Path(options.script)), ""
    scorer = _function(options.scorer) if options.scorer else None
    if scorer:
        name += f" {options.scorer}"
        source += _source_digest(scorer)
    return Scripted(
        script, scorer=scorer, name=name, source=source, seconds=options.seconds, concurrency=options.concurrency
    )


def _function(name: str) -> Any:
    function = plugins.load_attribute(name)
    if not callable(function):
        raise Mistake(name, "is not a function", "name one: pkg.module:function")
    return function


def _source_digest(function: Any) -> str:
    """A digest of the function's source, so that an edited function is asked again; empty if it has no source."""
    plain = inspect.unwrap(getattr(function, "func", function))  # functools.partial has no source of its own
    try:
        source = inspect.getsource(plain if inspect.isroutine(plain) or inspect.isclass(plain) else type(plain))
    except (OSError, TypeError):  # built in, or made at run time
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _from_file(path: Path) -> tuple[Script, str]:
    try:
        raw = path.read_bytes()
        lines = [json.loads(line) for line in raw.splitlines() if line.strip()]
        answers = [(str(line.get("contains", "")), str(line["answer"])) for line in lines]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        fix = 'write lines of {"contains": ..., "answer": ...}'
        raise Mistake(str(path), f"is not a script: {error}", fix) from None

    def script(request: Request) -> str:
        asked = request.messages[-1].content
        for contains, answer in answers:
            if contains in asked:
                return answer
        raise Permanent("unscripted", f"no line of {path.name} answers {asked[:60]!r}")

    return script, hashlib.sha256(raw).hexdigest()[:16]


BACKEND = Backend(options=Options, open=open_scripted, about="answers from a function or a file; for tests")
