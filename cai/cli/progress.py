"""How far a run is: a live line on a terminal, a plain line every ten seconds elsewhere.

It reads the pipeline's Progress from a thread of its own, so that the work never waits for a screen.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO

from cai.core.safe_text import safe_text
from cai.runs.progress import Progress

TICK = 0.2
"""Seconds between looks on a terminal."""
LOG_EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Live:
    """A context that shows `progress` on `stream` while it is open."""

    def __init__(self, progress: Progress, stream: IO[str]) -> None:
        self._progress, self._stream = progress, stream
        self._done = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._show, name="live", daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _show(self) -> None:
        terminal, stage, shown_at = self._stream.isatty(), "", 0.0
        while not self._done.wait(TICK):
            due = self._progress.stage != stage or time.monotonic() - shown_at >= LOG_EVERY
            if terminal and self._progress.stage == Progress.stage:
                continue  # a model that is fetched shows a bar of its own
            if terminal or due:
                self._stream.write(f"\r\x1b[2K{self.line()}" if terminal else f"{self.line()}\n")
                self._stream.flush()
                stage, shown_at = self._progress.stage, time.monotonic()
        self._stream.write("\r\x1b[2K" if terminal else "")
        self._stream.flush()

    def line(self) -> str:
        """One line: stage, done / total, calls, rate, time left."""
        now, seconds = self._progress, time.monotonic() - self._started
        if now.stage == "scores":
            return f"{now.done:,} answers scored · {_clock(seconds)}"
        if now.stage not in ("traces", "labels"):
            return f"{now.stage} ... {_clock(seconds)}"
        asked = sum(tally.asked for tally in now.tallies.values())
        found = sum(tally.found for tally in now.tallies.values())
        tokens = sum(tally.prompt_tokens + tally.completion_tokens for tally in now.tallies.values())
        parts = [f"{now.done} / {now.total}" if now.total is not None else f"{now.done}"]
        parts += [f"{asked} calls asked", f"{found} found"] if found else [f"{asked} calls"]
        parts += [f"{asked / seconds:.1f} calls/s"] if asked else []
        parts += [f"{tokens / seconds:.0f} tokens/s"] if tokens else []
        costs = [tally.new_cost for tally in now.tallies.values() if tally.new_cost is not None]
        parts += [f"cost {sum(costs):.4f}"] if costs else []
        model = now.status()
        parts += [f"{model['in_flight']:.0f} in flight of {model['limit']:.0f}"] if "limit" in model else []
        parts += [f"{model['throttled']:.0f} x 429"] if model.get("throttled") else []
        reasons = {
            name.removeprefix("retried: "): count for name, count in model.items() if name.startswith("retried: ")
        }
        told = ", ".join(f"{count:.0f} {kind}" for kind, count in sorted(reasons.items()) if kind != "rate_limited")
        parts += [f"retried: {told}"] if told else []
        parts += [f"waiting {_clock(model['held'])} for the endpoint"] if model.get("held", 0) > 2 else []
        parts += [f"{now.failed} failed"] if now.failed else []
        if now.total and 0 < now.done < now.total:
            parts.append(f"{_clock((now.total - now.done) * seconds / now.done)} left")
        return " · ".join([*parts, _clock(seconds)])


@contextmanager
def watched(quiet: bool) -> Iterator[Progress]:
    """A new Progress, shown on stderr unless `quiet`; its notes are printed in any case."""
    progress = Progress(note=lambda text: print(f"cai: {safe_text(text)}", file=sys.stderr))
    with nullcontext() if quiet else Live(progress, sys.stderr):
        yield progress


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
