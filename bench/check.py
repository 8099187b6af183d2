"""Time and memory of `cai check` by number of rows: written rows of plain pairs, each size in a process of its own.

    python bench/check.py [--sizes 1000 10000 100000]

Prints a table and writes bench/check.json. The claims: 10,000 rows in well under a minute on one core; a further row
costs under 2 kB of memory, whatever the length of its texts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

JOB = """
import pathlib, resource, time
from cai.checks.run import check as hygiene
started = time.process_time()
said = hygiene.check([pathlib.Path({path!r})])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time() - started, said.pairs)
"""
SYLLABLES = ("ba", "cer", "di", "fo", "gu", "lan", "me", "nis", "po", "rut", "sa", "te")
WORDS = ["".join(parts) for parts in itertools.product(SYLLABLES, repeat=3)]
ZIPF = list(itertools.accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))


def text(rng: random.Random, words: int) -> str:
    """So many words, common ones as often as in a language."""
    return " ".join(rng.choices(WORDS, cum_weights=ZIPF, k=words))


def write(path: Path, rows: int, answer: int) -> None:
    """`rows` pairs whose answers have about `answer` words."""
    rng = random.Random(rows)
    with open(path, "w") as file:
        for number in range(rows):
            prompt = f"{text(rng, 30)} {number}"
            sides = {side: text(rng, rng.randint(answer // 2, answer * 3 // 2)) for side in ("chosen", "rejected")}
            file.write(json.dumps({"prompt": prompt, **sides}) + "\n")


def measure(rows: int, answer: int) -> dict[str, float]:
    """CPU seconds and peak memory (MiB) of a check of so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.jsonl")
        write(path, rows, answer)
        code = JOB.format(path=str(path))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        size = path.stat().st_size / 2**20
    peak, seconds, pairs = map(float, done.stdout.split())
    return {
        "rows": pairs,
        "words": answer,
        "file_MiB": size,
        "seconds": seconds,
        "rows_per_second": pairs / seconds,
        "peak_MiB": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--words", type=int, default=150, help="words of an answer")
    asked = parser.parse_args()
    print("| rows | words an answer | file MiB | CPU seconds | rows/s | peak MiB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for size in asked.sizes:
        row = measure(size, asked.words)
        rows.append(row)
        print(
            f"| {row['rows']:,.0f} | {row['words']} | {row['file_MiB']:.0f} | {row['seconds']:.1f} | "
            f"{row['rows_per_second']:.0f} | {row['peak_MiB']:.0f} |"
        )
    less, more = rows[-2:] if len(rows) > 1 else (rows[0], rows[0])
    further = (more["peak_MiB"] - less["peak_MiB"]) * 2**20 / max(1, more["rows"] - less["rows"])
    print(f"\na further row costs {further:.0f} bytes of memory")
    Path(__file__).with_suffix(".json").write_text(json.dumps({"rows": rows, "bytes_per_row": further}, indent=2))


if __name__ == "__main__":
    main()
