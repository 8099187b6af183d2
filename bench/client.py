"""How fast and how light the client is: a whole run against the mock server beside a bare aiohttp loop, on one core.

    python bench/client.py                    speed at 64 and 256 in flight, memory by size, the same run again
    python bench/client.py --sustained        100,000 prompts at full speed, each process on a core of its own

Client and server are processes pinned to the same core, so that what the one wastes the other lacks. The bare loop
sends the same questions, recorded from a run, and reads the answers, three in a row a prompt; the run does what `cai run` does, with
journal, run folder, gates, pairs and report. Both take turns, and neighbours are compared. CPU is each process's own
and is what to compare by where the machine has other work to do. Prints tables; what was measured takes its place in
bench/client.json, beside what was not measured this time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LATENCY = 0.02
CALLS = 3
"""Of each prompt: draft, critique, revision."""
TENTHS = 10
"""Times that memory is looked at while a run asks."""


def peak() -> float:
    """Most memory this process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> float:
    """Memory this process has now, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def serve(core: int, options: dict[str, Any], record: str = "") -> None:
    """The server's process; it notes what it is asked in the file `record`."""
    from cai.backends.mock import server, state
    from cai.backends.mock.server import serve
    from cai.backends.mock.state import Options

    class Recording(state.Mock):
        def reply(self, path: str, body: dict[str, Any], raw: bytes, *, batch: bool = False) -> Any:
            notes.write(raw + b"\n")
            notes.flush()
            return super().reply(path, body, raw, batch=batch)

    if record:
        notes = open(record, "wb")  # noqa: SIM115 (lives as long as the server)
        server.Mock = Recording  # type: ignore[misc]
    os.sched_setaffinity(0, {core})
    serve(Options(port=0, **options), lambda url: print(url, flush=True))


def bare(core: int, url: str, prompts: int, flight: int, recorded: str) -> dict[str, float]:
    """The bare loop's process: the run's own questions, each prompt's three one after the other."""
    import aiohttp

    bodies = [json.loads(line) for line in Path(recorded).read_text("utf-8").splitlines()]

    async def ask(session: aiohttp.ClientSession, body: dict[str, Any]) -> str:
        async with session.post(f"{url}/chat/completions", json=body) as response:
            answer = await response.json()
        return str(answer["choices"][0]["message"]["content"])

    async def loop(prompts: int) -> None:
        numbers = iter(range(prompts))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def worker() -> None:
                for number in numbers:
                    for call in range(CALLS):
                        await ask(session, bodies[(number * CALLS + call) % len(bodies)])

            await asyncio.gather(*(worker() for _ in range(flight)))

    os.sched_setaffinity(0, {core})
    asyncio.run(loop(1))
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(loop(prompts))
    seconds, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "peak": peak()}


def whole(core: int, url: str, prompts: int, flight: int, folder: str, warm: bool) -> dict[str, Any]:
    """The run's process: what `cai run` does, watched; after a run of eight prompts if `warm`, so that all is imported."""
    from cai.pipeline.generate import generate
    from cai.runs.folder import Run
    from cai.runs.progress import Progress

    marks: dict[str, tuple[float, float, float]] = {}
    held: list[float] = []

    class Watched(Progress):
        def __setattr__(self, name: str, value: Any) -> None:
            mark = value if name == "stage" else {1: "first", prompts: "last"}.get(value) if name == "done" else None
            if mark and mark not in marks:
                marks[mark] = (time.perf_counter(), time.process_time(), peak())
            if name == "done" and value and value % max(1, prompts // TENTHS) == 0:
                held.append(round(resident(), 1))
            super().__setattr__(name, value)

    if core >= 0:
        os.sched_setaffinity(0, {core})
    if warm:
        asyncio.run(generate(recipe(url, 8, 1, Path(folder, "warm")), Run(Path(folder, "warm", "run"))))
    chosen = recipe(url, prompts, flight, Path(folder))
    wall, cpu = time.perf_counter(), time.process_time()
    said = asyncio.run(generate(chosen, Run(Path(folder, "runs", "bench")), Watched())).as_json()
    seconds, spent = time.perf_counter() - wall, time.process_time() - cpu
    last, done = marks["last"], marks["exports"]
    return {
        "seconds": seconds,
        "cpu": spent,
        "calling": last[0] - wall,
        "calling_cpu": last[1] - cpu,
        "first": marks["first"][0] - wall,
        "peak": done[2],
        "asked": said["calls"]["writer"]["asked"],
        "traces": said["counts"]["draft"]["out"],
        "failed": sum(said["failures"].values()),
        "held": held[:TENTHS],
    }


def recipe(url: str, prompts: int, flight: int, folder: Path) -> Any:
    """The job: one critique and one revision for each prompt, in the form of templates that a large model gets."""
    from cai.runs.recipe import Recipe

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is thing number {n}?"}) + "\n" for n in range(prompts)))
    writer = {"backend": "openai", "model": "mock", "base_url": url, "concurrency": flight}
    return Recipe.model_validate(
        {"constitution": "default", "prompts": str(path), "templates": "large", "writer": writer,
         "critique": {"rounds": 1}, "export": {"formats": []}}
    )  # fmt: skip


@contextmanager
def server(core: int, record: str = "", **options: Any) -> Iterator[str]:
    """A server in a process of its own; its URL."""
    command = [sys.executable, __file__, "--role", json.dumps(["serve", core, options, record])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def child(*role: Any) -> dict[str, Any]:
    """What a role measured, in a process of its own, and how long that process lived."""
    command, started = [sys.executable, __file__, "--role", json.dumps(role)], time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1])) | {"process": time.perf_counter() - started}


def fetch(url: str) -> dict[str, Any]:
    """The server's own count."""
    from urllib.request import urlopen

    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return dict(json.load(answer))


def run_once(core: int, url: str, prompts: int, flight: int, *, again: bool = False) -> list[dict[str, Any]]:
    """One warm run; or a cold one and the same run again; in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        return [child("whole", core, url, prompts, flight, folder, not again) for _ in range(2 if again else 1)]


def speed(core: int, prompts: int, flight: int, repeats: int) -> dict[str, float]:
    """The run and the bare loop, taking turns against one server each time fresh; medians of each, and of the ratios.

    A ratio is of two neighbours, since the machine is not equally fast all the time.
    """
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        recorded = f"{folder}/bodies"
        with server(core, record=recorded, latency=LATENCY) as url:
            run_once(core, url, 500, flight)
            stats = fetch(url)
        size = stats["bytes_read"] // stats["asked"]
        for turn in range(repeats):
            with server(core, latency=LATENCY) as url:
                sides: list[Callable[[], Any]] = [
                    lambda url=url: ours.extend(run_once(core, url, prompts, flight)),
                    lambda url=url: theirs.append(child("bare", core, url, prompts, flight, recorded)),
                ]
                for side in sides if turn % 2 else reversed(sides):
                    side()
    middle = {key: statistics.median(row[key] for row in ours) for key in ours[0] if key != "held"}
    base = {key: statistics.median(row[key] for row in theirs) for key in theirs[0]}
    calls = CALLS * prompts

    def ratio(bare: str, run: str) -> float:
        return statistics.median(them[bare] / us[run] for them, us in zip(theirs, ours, strict=True))

    return {
        "flight": flight,
        "bytes": size,
        "bare_per_s": calls / base["seconds"],
        "run_per_s": calls / middle["seconds"],
        "ratio": ratio("seconds", "seconds"),
        "calling_ratio": ratio("seconds", "calling"),
        "bare_cpu_ms": base["cpu"] / calls * 1e3,
        "run_cpu_ms": middle["cpu"] / calls * 1e3,
        "cpu_ratio": 1 / ratio("cpu", "cpu"),
        "calling_cpu_ratio": 1 / ratio("cpu", "calling_cpu"),
        "first": middle["first"],
    }


def memory(core: int, prompts: int, flight: int = 256) -> dict[str, Any]:
    """A cold run and the same run again: most memory up to the export, and what the second one asked and took."""
    with server(core, latency=LATENCY) as url:
        first, again = run_once(core, url, prompts, flight, again=True)
    return {
        "prompts": prompts,
        "peak": first["peak"],
        "first": first["first"],
        "again_asked": again["asked"],
        "again_seconds": again["seconds"],
        "again_cpu": again["cpu"],
        "again_process": again["process"],
        "again_peak": again["peak"],
    }


def sustained(prompts: int, flight: int = 256) -> dict[str, Any]:
    """One long run, its server on another core: memory while it asks, and whether all came out."""
    with server(0, latency=LATENCY) as url, tempfile.TemporaryDirectory() as folder:
        run = child("whole", 1, url, prompts, flight, folder, False)
        stats = fetch(url)
    return {
        "prompts": prompts,
        "seconds": run["seconds"],
        "calls_per_s": CALLS * prompts / run["calling"],
        "cpu_ms": run["calling_cpu"] / (CALLS * prompts) * 1e3,
        "traces": run["traces"],
        "failed": run["failed"],
        "asked": run["asked"],
        "served": stats["asked"],
        "held": run["held"],
        "peak": run["peak"],
    }


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows under the names of their columns."""
    if not rows:
        return
    print(f"\n{title}")
    shown = [list(rows[0])] + [[f"{v:,.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def keep(**measured: Any) -> None:
    """Put what was measured into bench/client.json; what is empty was not measured."""
    path = Path(__file__).with_suffix(".json")
    old = json.loads(path.read_text("utf-8")) if path.exists() else {}
    new = {name: value for name, value in measured.items() if value}
    path.write_text(json.dumps(old | new, indent=1) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--flight", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--sizes", type=int, nargs="*", default=[500, 2_000, 10_000])
    parser.add_argument("--sustained", type=int, nargs="?", const=100_000, metavar="PROMPTS")
    given = parser.parse_args()
    if given.role:
        role, *rest = json.loads(given.role)
        roles: dict[str, Callable[..., Any]] = {"serve": serve, "bare": bare, "whole": whole}
        print(json.dumps(roles[role](*rest)))
        return
    if given.sustained:
        long = sustained(given.sustained)
        held = long["held"]
        table(
            "Sustained (MiB held while asking: the tenths of the run)", [{k: v for k, v in long.items() if k != "held"}]
        )
        print(*held)
        return keep(sustained=long)
    rows = [speed(given.core, given.prompts, flight, given.repeats) for flight in given.flight]
    table("Speed (calls/s; CPU ms a call; bare loop against the whole run, and against its calling alone)", rows)
    sizes = [memory(given.core, size) for size in given.sizes]
    table("Memory (MiB, up to the export) and the same run again", sizes)
    keep(speed=rows, memory=sizes)


if __name__ == "__main__":
    main()
