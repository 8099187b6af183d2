"""What the embedded model is worth as a judge: cards of three judges on two sets of human labels, beside what is free.

    python bench/judges.py [--gold FILE ...] [--limit 300] [--runs FOLDER]

Accuracies with 95 % bootstrap intervals; the gains are paired. `--runs` keeps the journal, so that a second look costs
nothing. Writes bench/judges.json and prints the table of docs/judges.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cai.pipeline.judge_card import measure_judges
from cai.report.cards.judge import judge_card_lines
from cai.runs import recipe
from cai.runs.folder import Run

PAIRS = ROOT.parent / "shared" / "data" / "pairs"
JUDGES = {
    "logprob, one order": ("logprob", ("judge.orders=one",)),
    "logprob, both orders": ("logprob", ()),
    "likelihood": ("likelihood", ()),
}
LINES = (
    "accuracy",
    "always the longer",
    "always the first shown",
    "one order",
    "no principle",
    "gain over one order",
    "gain over no principle",
    "gain over always the longer",
    "flips with the order",
    "right when the better is first",
    "right when the better is second",
)
"""What is taken out of a card, in its own words."""


def measured(gold: list[Path], limit: int, runs: Path) -> dict[str, Any]:
    """The cards: judge -> gold file -> line -> text."""
    said: dict[str, Any] = {}
    for name, (judge, overrides) in JUDGES.items():
        where = Run(runs / name.replace(", ", "-").replace(" ", "-"))
        card = asyncio.run(measure_judges(recipe.judge_recipe(judge, overrides), gold, where, limit=limit))
        said[name] = {
            file: {"pairs": each.pairs} | {k: v for k, v in judge_card_lines(each) if k in LINES}
            for file, each in card.gold.items()
        }
        print(f"{name}: {card.cost.new_calls} new calls, {card.cost.seconds} s", file=sys.stderr, flush=True)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gold", type=Path, nargs="+", default=[PAIRS / "hhh_438.jsonl", PAIRS / "hh_harmless_test.jsonl"]
    )
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        said = measured(given.gold, given.limit, given.runs or Path(folder))
    for file in next(iter(said.values())):
        print(
            f"\n| {file}, {said['likelihood'][file]['pairs']} pairs | {' | '.join(said)} |\n|{' --- |' * (len(said) + 1)}"
        )
        for line in LINES:
            print(f"| {line} | {' | '.join(card[file].get(line, '') for card in said.values())} |")
    (ROOT / "bench" / "judges.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
