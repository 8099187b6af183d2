"""How often each probe raises a false alarm on a clean case, and how often it catches what is planted.

    python bench/probes.py [--times 200] [--probes length sycophancy]

For every probe and subject: so many clean cases and so many planted ones, each from a seed of its own, at the default
threshold. An alarm is one finding or more past its threshold. Prints shares with exact 95 % intervals and writes
bench/probes.json. The claims: false alarms at most 5 %, detection at least 95 % at the effect that is stated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from cai.core import plugins
from cai.core.plugin_types import Probe, Subject

MOST_FALSE, LEAST_FOUND = 0.05, 0.95


def alarm(probe: Probe, subject: Subject, kind: str, seed: int) -> bool:
    """Whether any finding of one case is past its threshold."""
    exhibit = (probe.planted if kind == "planted" else probe.clean)(subject, seed)
    return any(found.passed is False for found in probe.looks[subject](exhibit, probe.options()))


def share(hits: int, n: int) -> dict[str, float]:
    """A share with its exact interval (Clopper and Pearson): a bootstrap of no hits has no width."""
    between = binomtest(hits, n).proportion_ci(method="exact")
    return {"value": hits / n, "low": float(between.low), "high": float(between.high), "n": n}


def measured(name: str, subject: Subject, times: int) -> dict[str, Any]:
    """Both shares of one probe and subject."""
    probe, started = plugins.find_plugin("audit", name, Probe), time.process_time()
    said = {
        key: share(sum(alarm(probe, subject, kind, 1000 + seed) for seed in range(times)), times)
        for key, kind in (("false_alarms", "clean"), ("detection", "planted"))
    }
    seconds = time.process_time() - started
    return {"probe": name, "subject": subject, "effect": probe.effect[subject], **said, "seconds": round(seconds, 1)}


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    shares = ("{value:6.1%} [{low:.1%}, {high:.1%}]".format(**row[key]) for key in ("false_alarms", "detection"))
    first, second = shares
    return f"{row['probe']:17} {row['subject']:7} {first:24} {second:25} {row['effect']}"


def main() -> None:
    """Measure, print, write; exit 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--probes", nargs="*", default=plugins.plugin_names("audit"))
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'probe':17} {'subject':7} {'false alarms':24} {'detection':25} planted")
    for name in asked.probes:
        for subject in plugins.find_plugin("audit", name, Probe).looks:
            rows.append(measured(name, subject, asked.times))
            print(line(rows[-1]), flush=True)
    if asked.probes == plugins.plugin_names("audit"):
        Path(__file__).with_suffix(".json").write_text(
            json.dumps({"times": asked.times, "rows": rows}, indent=2) + "\n"
        )
    bad = [
        f"{row['probe']} {row['subject']}"
        for row in rows
        if row["false_alarms"]["value"] > MOST_FALSE or row["detection"]["value"] < LEAST_FOUND
    ]
    sys.exit(f"not as claimed: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
