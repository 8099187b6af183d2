"""A model whose answers are written down: in a Python function or in a file. It drives the tests and dry examples.

A file holds one JSON object a line, `{"contains": "...", "answer": "..."}`; the first whose text occurs in the last
message answers, and a line without `contains` answers everything.

Left out on purpose: imitating a language model. It is deterministic, has no tokens, and counts words instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cai import plugins
from cai.errors import Mistake, Permanent
from cai.outside import Knobs
from cai.types import Backend, Completion, Request, Score, Usage

Script = Callable[[Request], str | Completion]


class Options(Knobs):
    """What a recipe says beside `backend: scripted`."""

    script: str
    """`pkg.module:function` (Request -> text or Completion), or a JSONL file."""
    seconds: float = 0.0
    """How long each answer takes."""
    concurrency: int = 64
    """Requests in flight."""


class Scripted:
    """A Model that answers by calling `script`. The script may raise CallFailed, or return a whole Completion."""

    def __init__(self, script: Script, *, name: str = "script", seconds: float = 0.0, concurrency: int = 64) -> None:
        self._script, self._seconds = script, seconds
        self.identity: Mapping[str, str] = {"engine": "scripted", "model": name}
        self.concurrency = concurrency

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(self._seconds)
        answer = self._script(request)
        if isinstance(answer, Completion):
            return answer
        read = sum(len(message.content.split()) for message in request.messages)
        return Completion(answer, usage=Usage(read, len(answer.split())))

    async def score(self, request: Request, continuations: Sequence[str]) -> tuple[Score, ...]:
        raise Mistake("backend: scripted", "a script gives no log-probabilities", "use the transformers backend")

    def status(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        return None


def scripted(script: Script) -> Scripted:
    """A Model from a function, for tests and notebooks."""
    return Scripted(script)


def open_scripted(options: Options) -> Scripted:
    """The Model that a recipe asks for. Raises Mistake where the script is not there or not a script."""
    if ":" in options.script and not Path(options.script).exists():
        script, name = plugins.load(options.script), options.script
        if not callable(script):
            raise Mistake(options.script, "is not a function", "name one: pkg.module:function")
    else:
        script, name = _from_file(Path(options.script))
    return Scripted(script, name=name, seconds=options.seconds, concurrency=options.concurrency)


def _from_file(path: Path) -> tuple[Script, str]:
    try:
        raw = path.read_bytes()
        lines = [json.loads(line) for line in raw.splitlines() if line.strip()]
        answers = [(str(line.get("contains", "")), str(line["answer"])) for line in lines]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Mistake(str(path), f"is no script: {error}", 'hold lines of {"contains": ..., "answer": ...}') from None

    def script(request: Request) -> str:
        asked = request.messages[-1].content
        for contains, answer in answers:
            if contains in asked:
                return answer
        raise Permanent("unscripted", f"no line of {path.name} answers {asked[:60]!r}")

    return script, hashlib.sha256(raw).hexdigest()[:16]


BACKEND = Backend(options=Options, open=open_scripted, about="answers from a function or a file; for tests")
