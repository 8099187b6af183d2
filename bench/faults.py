"""What a faulty endpoint costs: a whole run against the mock server at its worst, beside a loop with the usual retries.

    python bench/faults.py             three seeds at the rates of the issue, and at three times those rates

500 prompts, three dependent calls each; 10 % of requests get a 429 (Retry-After 0.2 s), 5 % a 500, 2 % a reset within
the answer, 1 % stall for 30 s, 1 % hold cut JSON, 1 % no text; the client's time-out is 10 s. The loop beside it does
what SDKs do by default: two retries with backoff on 408, 409, 429, 5xx and connection errors, and whatever else comes
back is taken. The server counts what it was asked, by digest. Writes bench/faults.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
CALLS = 3
RATES = {"429": 0.10, "500": 0.05, "reset": 0.02, "stall": 0.01, "malformed": 0.01, "empty": 0.01}
TIMEOUT = 10.0


@contextmanager
def server(seed: int, scale: float) -> Iterator[str]:
    """`cai mock-server` in a process of its own; its base URL."""
    faults = [word for name, rate in RATES.items() for word in ("--fault", f"{name}={rate * scale}")]
    command = [sys.executable, "-m", "cai", "mock-server", "--port", "0", "--retry-after", "0.2", "--seed", str(seed)]
    with subprocess.Popen([*command, *faults], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.kill()


def stats(url: str) -> dict[str, Any]:
    """The server's own count."""
    with urlopen(url.removesuffix("/v1") + "/stats?digests=1") as answer:
        return dict(json.load(answer))


def run(url: str, prompts: int, flight: int, folder: Path) -> dict[str, Any]:
    """`cai run`, as a user would."""
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"id": f"p{n}", "prompt": f"What is thing number {n}?"}) + "\n" for n in range(prompts))
    )
    recipe = {
        "constitution": "default", "prompts": str(folder / "prompts.jsonl"), "templates": "large",
        "writer": {"backend": "openai", "model": "mock", "base_url": url, "timeout": TIMEOUT, "concurrency": flight},
        "critique": {"rounds": 1}, "export": {"formats": []},
    }  # fmt: skip
    (folder / "bench.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    command = [
        sys.executable,
        "-m",
        "cai",
        "run",
        str(folder / "bench.yaml"),
        "--runs",
        str(folder / "runs"),
        "--quiet",
    ]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    rows = [json.loads(line) for line in (folder / "runs/bench/traces.jsonl").read_text("utf-8").splitlines()]
    whole = [row for row in rows if row["draft"]["text"].strip() and row["steps"][0]["revision"]["text"].strip()]
    return {
        "exit": done.returncode,
        "complete": len({row["prompt"]["id"] for row in whole}),
        "twice": len(rows) - len({row["prompt"]["id"] for row in rows}),
        "empty": len(rows) - len(whole),
        "seconds": seconds,
    }


async def usual(url: str, prompts: int, flight: int) -> dict[str, Any]:
    """The loop with the usual retries; a prompt is complete when its three answers have text."""
    import aiohttp

    async def ask(session: aiohttp.ClientSession, text: str) -> str:
        body = {"model": "mock", "messages": [{"role": "user", "content": text}], "max_tokens": 512}
        for attempt in range(3):
            try:
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    if response.status < 400:
                        return str((await response.json())["choices"][0]["message"]["content"])
                    if response.status not in (408, 409, 429) and response.status < 500:
                        raise RuntimeError(response.status)
                    wait = float(response.headers.get("Retry-After") or 0.5 * 2**attempt)
            except (aiohttp.ClientError, TimeoutError):
                wait = 0.5 * 2**attempt
            await asyncio.sleep(wait)
        raise RuntimeError("enough")

    outcome: Counter[str] = Counter()
    numbers = iter(range(prompts))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            try:
                answers = [""]
                for call in range(CALLS):
                    answers.append(await ask(session, f"{number} {call} {answers[-1]}"))
                outcome["complete" if all(answers[1:]) else "empty"] += 1
            except Exception as error:  # what such a loop does: the prompt is lost
                outcome[f"lost: {type(error).__name__}"] += 1

    started = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(worker(session) for _ in range(flight)))
    return {**outcome, "seconds": time.perf_counter() - started}


def once(seed: int, scale: float, prompts: int, flight: int) -> dict[str, Any]:
    """Both clients, each against a server of its own that draws the same faults."""
    with server(seed, scale) as url, tempfile.TemporaryDirectory() as folder:
        ours = run(url, prompts, flight, Path(folder))
        said = stats(url)
    with server(seed, scale) as url:
        theirs = asyncio.run(usual(url, prompts, flight))
    answers = said["answered"]
    spoiled = sum(said["faults"].values())
    return ours | {
        "seed": seed,
        "scale": scale,
        "prompts": prompts,
        "asked": said["asked"],
        "faults": spoiled,
        "paid_twice": sum(max(0, good - 1) for _, good in said["digests"].values()),
        "needless": said["asked"] - answers - spoiled,
        "times_calls": said["asked"] / (prompts * CALLS),
        "usual": theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--flight", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 3.0])
    given = parser.parse_args()
    rows = [once(seed, scale, given.prompts, given.flight) for scale in given.scales for seed in given.seeds]
    print("rates  seed  complete  seconds  asked/calls  asked twice  | usual retries: complete  seconds")
    for row in rows:
        usual_ = row["usual"]
        print(
            f"{row['scale']:>4.0f}x  {row['seed']:>4}  {row['complete']:>4}/{row['prompts']}  {row['seconds']:>7.1f}"
            f"  {row['times_calls']:>11.3f}  {row['paid_twice']:>11}  | {usual_.get('complete', 0):>23}  {usual_['seconds']:>7.1f}"
        )
    for scale in given.scales:
        some = [row for row in rows if row["scale"] == scale]
        print(f"{scale:.0f}x: median {statistics.median(row['seconds'] for row in some):.1f} s")
    (ROOT / "bench" / "faults.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
