"""The judge's card: planted judges come out as they were planted, and each control says what it should."""

from __future__ import annotations

import asyncio
import json
import random
from math import exp, log
from pathlib import Path
from typing import Any

import planted_judge
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cai.cli.judge_card import judge_card_command as command
from cai.core import calibration
from cai.core.errors import Mistake
from cai.core.types import Message, Pair, Prompt, Verdict
from cai.judges.panel import gold
from cai.judges.panel.card import Judged, family, judge_figures, judged_row, own_family
from cai.pipeline.judge_card import measure_judges
from cai.report.cards.judge import judge_card_lines
from cai.runs import recipe
from cai.runs.files import record_as_json
from cai.runs.folder import Run
from cai.runs.judge_card import JudgeCard

SCRIPTED = (
    "writer.backend=scripted",
    "writer.script=planted_judge:votes",
    "writer.scorer=planted_judge:biased",
)


def rows(count: int, seed: int = 0, *, sure: bool = False) -> list[dict[str, Any]]:
    """Gold pairs: the better quality is chosen with the planted judge's own probability, so that it is calibrated.

    `sure`: the better quality is chosen always.
    """
    chance, made = random.Random(seed), []
    for number in range(count):
        a, b = (f"quality {chance.randint(0, 9)} " + "word " * chance.randint(0, 9) for _ in range(2))
        p = planted_judge.p(a, b)
        one, other = (a, b) if (p > 0.5 if sure else chance.random() < p) else (b, a)
        made.append(
            {"id": f"g{number}", "prompt": "Q?", "chosen": one, "rejected": other, "category": f"c{number % 2}"}
        )
    return made


def write(path: Path, made: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def measured(tmp_path: Path, method: str, made: list[dict[str, Any]], *overrides: str, **how: Any) -> Any:
    chosen = recipe.judge_recipe(method, (*SCRIPTED, *overrides))
    file = write(tmp_path / "gold.jsonl", made)
    said = asyncio.run(measure_judges(chosen, [file], Run(tmp_path / "runs" / "card"), **how)).as_json()
    return said["gold"]["gold"]


def test_a_planted_judge_is_recovered_with_its_bias(tmp_path: Path) -> None:
    found = measured(tmp_path, "logprob", rows(400))
    assert found["position"]["bias"]["value"] == pytest.approx(planted_judge.BIAS)
    assert found["position"]["flips"]["value"] > 0.2
    assert found["position"]["right_when_first"]["value"] > found["position"]["right_when_second"]["value"] + 0.2
    assert found["calibration"]["ece"] < 0.08
    scaling = found["calibration"]["scaling"]
    assert 0.6 < scaling["temperature"] < 1.7
    assert found["accuracy"]["value"] == pytest.approx(right(rows(400)), abs=1e-9)


def right(made: list[dict[str, Any]]) -> float:
    """How often a judge that knows every quality is right."""
    differ = [(row["chosen"], row["rejected"]) for row in made if row["chosen"] != row["rejected"]]
    gaps = [planted_judge.quality(chosen) - planted_judge.quality(rejected) for chosen, rejected in differ]
    return sum((gap > 0) + (gap == 0) / 2 for gap in gaps) / len(gaps)


def test_asking_both_orders_beats_one_for_a_biased_judge(tmp_path: Path) -> None:
    found = measured(tmp_path, "logprob", rows(400, sure=True))
    assert found["gains"]["one_order"]["low"] > 0
    assert found["controls"]["one_order"]["value"] < found["accuracy"]["value"]


def test_one_order_alone_is_what_the_control_said(tmp_path: Path) -> None:
    made = rows(100)
    both, one = measured(tmp_path, "logprob", made), measured(tmp_path, "logprob", made, "judge.orders=one")
    assert one["accuracy"]["value"] == both["controls"]["one_order"]["value"]
    assert "one_order" not in {name for name, control in one["controls"].items() if control}
    assert one["position"]["prefers_first"]["value"] > 0.55
    assert one["controls"]["always_first"]["value"] == both["controls"]["always_first"]["value"]


def test_baselines_are_those_of_the_pairs(tmp_path: Path) -> None:
    made = rows(200)
    found = measured(tmp_path, "logprob", made)
    counts = [len(row["chosen"].split()) - len(row["rejected"].split()) for row in made]
    assert found["controls"]["always_longer"]["value"] == sum((gap > 0) + (gap == 0) / 2 for gap in counts) / 200
    assert 0.35 < found["controls"]["always_first"]["value"] < 0.65
    assert set(found["by_category"]) == {"c0", "c1"}
    assert found["by_category"]["c0"]["n"] == 100


def test_a_likelihood_judge_stands_beside_its_control(tmp_path: Path) -> None:
    found = measured(tmp_path, "likelihood", rows(60))
    assert found["controls"]["no_principle"]["value"] > 0.5
    assert found["gains"]["no_principle"]["value"] == pytest.approx(
        found["accuracy"]["value"] - found["controls"]["no_principle"]["value"]
    )


def test_what_cannot_be_judged_is_counted_and_no_number(tmp_path: Path) -> None:
    made = [*rows(10), {"id": "tie", "prompt": "Q?", "chosen": "a", "rejected": "b", "p_chosen": 0.5}, {"id": "bad"}]
    found = measured(tmp_path, "sampled", made, "writer.script=test_judge_card:mumbles")
    assert found["lost"] == {"tie_in_gold": 1, "bad_row": 1, "unparsable": 10}
    assert found["accuracy"] is None


def mumbles(request: Any) -> str:
    return "well"


def test_a_sample_of_the_gold_is_drawn_by_digest(tmp_path: Path) -> None:
    made = rows(100)
    found = measured(tmp_path, "logprob", made, limit=30)
    again = measured(tmp_path, "logprob", made[::-1], limit=30)
    assert found["pairs"] == 30
    assert found["accuracy"]["value"] == again["accuracy"]["value"]


def test_several_judges_have_a_card_each(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "constitution: default\nprompts: everyday\ntemplates: small\njudge: {by: [logprob, score], combine: mean}\n"
        "writer: {backend: scripted, script: 'planted_judge:votes', scorer: 'planted_judge:biased'}\n"
    )
    file = write(tmp_path / "gold.jsonl", rows(20))
    said = asyncio.run(measure_judges(recipe.load_recipe(path), [file], Run(tmp_path / "runs" / "card"))).as_json()
    found = said["gold"]["gold"]
    assert [one["judge"].split(" ")[0] for one in found["judges"]] == ["logprob", "score"]
    assert found["disagreement"]["value"] > 0


def test_the_same_again_asks_nothing(tmp_path: Path) -> None:
    file, where = write(tmp_path / "g.jsonl", rows(20)), Run(tmp_path / "runs" / "card")
    chosen = recipe.judge_recipe("logprob", SCRIPTED)
    first, again = (asyncio.run(measure_judges(chosen, [file], where)).as_json() for _ in range(2))
    assert (first["cost"]["new_calls"], again["cost"]["new_calls"]) == (40, 0)
    assert first["cost"]["calls_per_label"] == again["cost"]["calls_per_label"] == 2
    assert first["gold"] == again["gold"]


def figures(made: list[Judged], *, gold: bool) -> dict[str, Any]:
    return record_as_json(judge_figures(made, gold=gold))


def rows_of(*p: float, longer: tuple[float, ...] = (), orders: Any = ()) -> list[Judged]:
    sides = longer or (0.5,) * len(p)
    return [Judged(f"r{n}", one, orders, longer=side) for n, (one, side) in enumerate(zip(p, sides, strict=True))]


def test_a_judge_of_length_alone_leans_to_length_and_a_right_one_does_not() -> None:
    longer = (1.0,) * 30 + (0.0,) * 10  # the better answer is the longer one in three of four pairs
    by_length = figures(rows_of(*(0.9 if side else 0.1 for side in longer), longer=longer), gold=True)
    by_quality = figures(rows_of(*(0.9,) * 40, longer=longer), gold=True)
    assert by_length["length"]["prefers_longer"]["value"] == pytest.approx(1)
    assert by_quality["length"]["prefers_longer"]["value"] == pytest.approx(0.5)


def test_a_judge_that_prefers_its_own_family_is_seen() -> None:
    made = [Judged(f"r{n}", 0.9 if mine else 0.1, own=mine) for n, mine in enumerate([1.0, 0.0] * 20)]
    assert figures(made, gold=True)["self_preference"]["value"] == pytest.approx(1)
    fair = [Judged(f"r{n}", 0.8, own=mine) for n, mine in enumerate([1.0, 0.0] * 20)]
    assert figures(fair, gold=True)["self_preference"]["value"] == pytest.approx(0.5)


def test_families_are_told_by_the_models_names() -> None:
    assert family("Qwen/Qwen2.5-7B-Instruct") == family("qwen3-8b") == "qwen"
    assert own_family("smollm2-135m", "smollm2-360m", "Qwen/Qwen3") == 1
    assert own_family("smollm2-135m", "Qwen/Qwen3", "/models/SmolLM3") == 0
    assert own_family("smollm2", "smollm2", "smollm3") is None
    assert own_family("smollm2", "", "smollm3") is None


def test_ties_are_half_right_and_abstentions_are_neither() -> None:
    found = figures([*rows_of(0.5, 0.5, 0.9), Judged("x", None)], gold=True)
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["ties"]["value"] == pytest.approx(2 / 3)
    assert found["abstained"] == 1


def test_a_card_of_nothing_says_so() -> None:
    found = figures([], gold=True)
    assert (found["n"], found["abstained"], found["accuracy"]) == (0, 0, None)


def test_a_card_of_labels_has_no_accuracy() -> None:
    pair = Pair(Prompt("p", (Message("user", "x"),)), 0, "a b", "c", 0.8, (), "sample:1>0",
                verdict=Verdict(0.8, "logprob", "smollm2", orders=(0.9, 0.7)), writers=("writer", "writer-2"))  # fmt: skip
    found = record_as_json(gold.label_figures([pair] * 3, {"writer": "smollm2", "writer-2": "qwen2"}, 0))
    assert found["accuracy"] is None
    assert found["position"]["bias"]["value"] == pytest.approx(0.1)
    assert found["self_preference"]["value"] == 1
    assert found["length"]["prefers_longer"]["value"] == 1


def test_temperature_scaling_finds_the_heat_it_was_planted_with() -> None:
    chance = random.Random(0)
    true = [chance.uniform(0.02, 0.98) for _ in range(4000)]
    p = [one if chance.random() < one else 1 - one for one in true]
    sharpened = [calibration.scaled(one, 1 / 3) for one in p]
    found = calibration.scaling(sharpened[:2000], sharpened[2000:])
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.after.ece < found.before.ece / 2
    assert found.nll_change.high < 0


def test_a_judge_that_is_worse_than_chance_is_cooled_to_silence() -> None:
    found = calibration.scaling([0.1] * 50, [0.1] * 50)
    assert found.temperature > 100
    assert found.after.nll.value == pytest.approx(log(2), abs=0.01)


def test_there_is_nothing_to_fit_where_every_verdict_is_a_tie() -> None:
    assert calibration.scaling([0.5] * 10, [0.5] * 10) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_calibration_is_symmetric_in_what_is_called_first_and_finite(p: list[float]) -> None:
    found = calibration.calibration(p)
    assert 0 <= found.ece <= 1
    assert 0 <= found.brier.value <= 1
    assert found.nll.value < 20
    assert sum(part.n for part in calibration.bins(p)) == len(p)


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.05, 20))
def test_heating_divides_the_log_odds(p: float, heat: float) -> None:
    odds = log(p / (1 - p)) / heat
    assert calibration.scaled(p, heat) == pytest.approx(1 / (1 + exp(-odds)), rel=1e-6)


def test_a_perfectly_calibrated_judge_has_no_calibration_error() -> None:
    p = [0.75] * 75 + [0.25] * 25
    assert calibration.calibration(p).ece == pytest.approx(0)


def test_words_and_not_characters_make_an_answer_longer() -> None:
    verdict = Verdict(0.9, "m", "j")
    assert judged_row("x", verdict, "a b c", "extraordinarily long", shown_first=True).longer == 1
    assert judged_row("x", verdict, "a b", "c d", shown_first=True).longer == 0.5


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(command)
    return made


def test_the_command_prints_a_card_and_leaves_json_and_a_page(tmp_path: Path) -> None:
    file = write(tmp_path / "g.jsonl", [row | {"category": "<script>alert(1)</script>\x1b[31m"} for row in rows(30)])
    given = ["logprob", "--gold", str(file), "--runs", str(tmp_path / "runs"), "--quiet"]
    for override in SCRIPTED:
        given += ["-o", override]
    done = CliRunner().invoke(app(), given)
    assert done.exit_code == 0, done.output
    assert "accuracy" in done.output and "always the longer" in done.output
    assert "\x1b" not in done.output
    folder = tmp_path / "runs" / "card-logprob"
    assert json.loads((folder / "judge_card.json").read_text())["gold"]["g"]["n"] == 30
    page = (folder / "judge_card.html").read_text()
    assert "<script>alert(1)" not in page
    assert "Right, by confidence" in page
    again = CliRunner().invoke(app(), [*given, "--json"])
    assert json.loads(again.stdout)["cost"]["new_calls"] == 0


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no such recipe"):
        CliRunner().invoke(app(), ["logprop", "--gold", "x"], catch_exceptions=False)
    with pytest.raises(Mistake, match="cannot be read|no such|cannot be opened"):
        CliRunner().invoke(
            app(), ["logprob", "--gold", "none.jsonl", "--runs", str(tmp_path), "--quiet", "-o", SCRIPTED[0], "-o", SCRIPTED[1],
                    "-o", SCRIPTED[2]], catch_exceptions=False,
        )  # fmt: skip


def test_every_line_of_a_card_can_be_read(tmp_path: Path) -> None:
    measured(tmp_path, "logprob", rows(50))
    card = JudgeCard.read(tmp_path / "runs" / "card")
    said = dict(judge_card_lines(card.gold["gold"]))
    assert {"accuracy", "one order", "gain over one order", "flips with the order", "calibration"} <= said.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["hhh_438", "hh_harmless_test", "llmbar", "pandalm_test", "truthfulqa", "coconot_pref", "icai_synthetic"]
)
def test_published_pairs_are_read_as_they_are(name: str, data: Path, tmp_path: Path) -> None:
    file = data / "pairs" / f"{name}.jsonl"
    chosen = recipe.judge_recipe("score", (*SCRIPTED, "writer.scorer=test_judge_card:by_length"))
    said = asyncio.run(measure_judges(chosen, [file], Run(tmp_path / "runs" / "card"), limit=100)).as_json()["gold"][
        name
    ]
    assert said["lost"].get("bad_row", 0) == 0
    assert said["pairs"] == min(100, sum(1 for _ in file.open()))


def by_length(request: Any, option: str) -> float:
    return -abs(int(option.strip(" ()")) - 1 - len(request.messages[-1].content) % 10)
