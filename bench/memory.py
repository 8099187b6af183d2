"""Memory and time of the engine room by number of prompts: the whole job on a scripted model, each size in a process.

    python bench/memory.py [--sizes 5000 50000]

Prints a table and writes bench/memory.json. The claim: 50,000 prompts peak within 1.25x of 5,000.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

JOB = """
import asyncio, pathlib, resource, sys, time
sys.path.insert(0, {tests!r})
from cai.pipeline import generate as pipeline
from cai.runs.recipe import Recipe
from cai.runs.folder import Run
recipe = Recipe.model_validate(dict(constitution="default", prompts={prompts!r}, templates="small",
    writer=dict(backend="scripted", script="scripts:steady"), critique=dict(rounds=1), export=dict(formats=[])))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
run = Run(pathlib.Path({folder!r}))
started = time.perf_counter()
said = asyncio.run(pipeline.generate(recipe, run)).as_json()
first, at = peak(), time.perf_counter()
said = asyncio.run(pipeline.generate(recipe, run)).as_json()
print(first, at - started, peak(), time.perf_counter() - at, said["counts"]["pair"]["out"], said["calls"]["writer"]["asked"])
"""


def measure(size: int) -> dict[str, float]:
    """Peak resident memory (MiB) and seconds of a run over `size` prompts, and of the same run again."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder, "prompts.jsonl")
        prompts.write_text("".join(json.dumps({"prompt": f"What is thing number {n}?"}) + "\n" for n in range(size)))
        tests = str(Path(__file__).parents[1] / "tests")
        code = JOB.format(tests=tests, prompts=str(prompts), folder=str(Path(folder, "runs", "bench")))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, seconds, peak_again, seconds_again, pairs, asked_again = map(float, done.stdout.split())
    return {
        "prompts": size,
        "peak_MiB": peak,
        "seconds": seconds,
        "calls_per_second": 3 * size / seconds,
        "again_peak_MiB": peak_again,
        "again_seconds": seconds_again,
        "again_calls": asked_again,
        "pairs": pairs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000])
    rows = [measure(size) for size in parser.parse_args().sizes]
    print("| prompts | peak MiB | seconds | calls/s | again: peak MiB | again: seconds | again: calls |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['prompts']:,} | {row['peak_MiB']:.0f} | {row['seconds']:.1f} | {row['calls_per_second']:.0f} "
            f"| {row['again_peak_MiB']:.0f} | {row['again_seconds']:.1f} | {row['again_calls']:.0f} |"
        )
    ratio = rows[-1]["peak_MiB"] / rows[0]["peak_MiB"]
    print(f"\npeak at {rows[-1]['prompts']:,} prompts is {ratio:.2f}x that at {rows[0]['prompts']:,}")
    Path(__file__).with_suffix(".json").write_text(json.dumps({"rows": rows, "peak_ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
