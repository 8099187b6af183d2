"""How what is found in preference pairs is measured and judged: scores, ties, thresholds, invariants."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from foreign_pairs import FORMATS, Plain, write, write_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted_pairs import FAULTS, ROWS, by_length, checked, clean, missed, of

from cai.checks import thinking
from cai.checks.run.check import check_pairs, known_kinds
from cai.checks.run.finding import ENOUGH
from cai.checks.run.minhash import Signatures, nearest
from cai.checks.run.options import check_options
from cai.cli.check_table import check_lines
from cai.core.errors import Mistake
from cai.data.pair_formats import PAIR_FORMATS

KINDS = known_kinds()
DEFAULTS = {name: value for options in check_options().values() for name, value in options}
DEFAULTS = {name: value for options in check_options().values() for name, value in options}

# --- Scores, votes and ties -------------------------------------------------------------------------------------------


def scored(pairs: Sequence[Plain], scores: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        FORMATS["trl"](pair) | {"score_chosen": chosen, "score_rejected": rejected}
        for pair, (chosen, rejected) in zip(pairs, scores, strict=True)
    ]


def test_a_ten_that_was_a_one_stands_out_by_its_margin(tmp_path: Path) -> None:
    rng = random.Random(0)
    scores = [(low + rng.choice([0.5, 1, 1.5, 2]), low) for low in (rng.choice([5, 6, 7, 7.5, 8]) for _ in range(ROWS))]
    path = write_rows(tmp_path / "p.jsonl", scored(clean(ROWS), scores))
    assert missed(checked(path)) == set()
    scores[7] = (10, 1)
    said = checked(write_rows(path, scored(clean(ROWS), scores)))
    assert missed(said) == {"score_outliers"}
    assert of(said, "score_outliers").saw == ("p.jsonl:8 has a margin of 9",)


def test_scores_off_the_scale_stand_out_by_themselves(tmp_path: Path) -> None:
    scores: list[tuple[float, float]] = [(4 + number % 2, 3 - number % 2) for number in range(ROWS)]
    scores[7] = (104, 103)
    said = checked(write_rows(tmp_path / "p.jsonl", scored(clean(ROWS), scores)))
    assert of(said, "score_outliers").saw == ("p.jsonl:8 has the scores 104 and 103",)


def test_rows_that_share_an_id_are_counted_one_by_one(tmp_path: Path) -> None:
    rng = random.Random(0)
    scores = [(low + rng.choice([0.5, 1, 1.5, 2]), low) for low in (rng.choice([5, 6, 7, 7.5, 8]) for _ in range(ROWS))]
    scores[3] = scores[7] = (10, 1)
    made = [row | {"prompt_id": "same"} for row in scored(clean(ROWS), scores)]
    assert of(checked(write_rows(tmp_path / "p.jsonl", made)), "score_outliers").rows == 2


def test_scores_that_prefer_the_other_side_are_found(tmp_path: Path) -> None:
    scores: list[tuple[float, float]] = [(4 + number % 2, 3) for number in range(ROWS)]
    scores[7] = (3, 5)
    assert "inverted_scores" in missed(checked(write_rows(tmp_path / "p.jsonl", scored(clean(ROWS), scores))))
    listed = [
        FORMATS["pairs"](pair) | {"p_chosen": 0.4 if number == 7 else 0.8} for number, pair in enumerate(clean(ROWS))
    ]
    assert missed(checked(write_rows(tmp_path / "p.jsonl", listed))) == {"inverted_scores"}


def test_files_without_scores_say_nothing_of_scores(tmp_path: Path) -> None:
    said = checked(write(tmp_path / "p.jsonl", "trl", clean(5)))
    assert not {"inverted_scores", "score_outliers"} & {finding.what for finding in said.findings}


def test_ties_are_counted_and_tell_nothing_about_the_sides(tmp_path: Path) -> None:
    longer = [by_length(pair, longer=True) for pair in clean(ROWS)]
    listed = [FORMATS["pairs"](pair) | {"p_chosen": 0.5} for pair in longer]
    said = checked(write_rows(tmp_path / "p.jsonl", listed))
    assert (said.ties, missed(said)) == (ROWS, set())
    assert of(said, "always_longer").n == 0


# --- How a share is judged --------------------------------------------------------------------------------------------


def test_a_threshold_can_be_set_and_its_edge_passes(tmp_path: Path) -> None:
    plant, _ = FAULTS["identical"]
    path = write(tmp_path / "p.jsonl", "trl", plant(clean(ROWS)))
    assert of(checked(path), "identical").value == 2 / ROWS
    assert missed(checked(path, identical=0.05)) == set()
    assert missed(checked(path, identical=2 / ROWS)) == set()
    assert missed(checked(path, identical=0.03)) == {"identical"}


def test_max_length_counts_prompt_and_answer(tmp_path: Path) -> None:
    pair = Plain((("user", "one two three"),), "la la la la x", "la la la la y")
    path = write(tmp_path / "p.jsonl", "trl", [pair])
    assert of(checked(path, max_length=8), "identical_when_cut").passed
    path = write(tmp_path / "p.jsonl", "trl", [pair.but(chosen="la " * 5 + "x", rejected="la " * 5 + "y")])
    assert not of(checked(path, max_length=8), "identical_when_cut").passed
    assert of(checked(path, max_length=9), "identical_when_cut").passed


def test_a_tendency_is_not_read_from_a_few_rows(tmp_path: Path) -> None:
    longer = [by_length(pair, longer=True) for pair in clean(ENOUGH)]
    assert missed(checked(write(tmp_path / "p.jsonl", "trl", longer[:-1]))) == set()
    assert missed(checked(write(tmp_path / "p.jsonl", "trl", longer))) == {"always_longer"}


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("identicle=1", "unknown key 'identicle'; did you mean 'identical'"),
        ("identical", "not of the form key=value"),
        ("identical=2", "less than or equal to 1"),
        ("format=x", "there is no such format"),
    ],
)
def test_a_wrong_setting_is_a_mistake(tmp_path: Path, setting: str, what: str) -> None:
    path = write(tmp_path / "p.jsonl", "trl", clean(2))
    with pytest.raises(Mistake, match=what):
        check_pairs([path], check_options([setting]))


def test_false_alarms_are_rare_at_the_size_where_judging_begins(tmp_path: Path) -> None:
    alarms = [missed(checked(write(tmp_path / "p.jsonl", "pairs", clean(ENOUGH, seed)))) for seed in range(100)]
    assert sum(map(bool, alarms)) <= 10, alarms


# --- Invariants -------------------------------------------------------------------------------------------------------

MIRRORED = ("length_skew", "refusals", "boilerplate")


@given(st.integers(0, 10_000), st.sampled_from(sorted(FAULTS)))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_swapping_the_sides_mirrors_what_compares_them(tmp_path: Path, seed: int, fault: str) -> None:
    pairs = FAULTS[fault][0](clean(40, seed))
    there = checked(write(tmp_path / "p.jsonl", "pairs", pairs))
    swapped = [Plain(pair.asked, pair.rejected, pair.chosen) for pair in pairs]
    back = checked(write(tmp_path / "p.jsonl", "pairs", swapped))
    for one, other in zip(there.findings, back.findings, strict=True):
        if one.what == "always_longer":
            assert one.value + other.value == pytest.approx(1)  # type: ignore[operator]
        elif one.what in MIRRORED:
            assert one.value == pytest.approx(-other.value)  # type: ignore[operator]
        else:
            assert one.value == other.value


@given(st.integers(0, 10_000), st.sampled_from(sorted(FAULTS)), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_rows_changes_no_value(tmp_path: Path, seed: int, fault: str, rng: random.Random) -> None:
    pairs = FAULTS[fault][0](clean(40, seed))
    there = checked(write(tmp_path / "p.jsonl", "pairs", pairs))
    rng.shuffle(pairs)
    back = checked(write(tmp_path / "p.jsonl", "pairs", pairs))
    assert [(one.what, one.value, one.rows) for one in there.findings] == [
        (one.what, one.value, one.rows) for one in back.findings
    ]


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_texts_can_be_checked_and_counts_reconcile(tmp_path: Path, texts: list[tuple[str, str, str]]) -> None:
    listed = [{"prompt": asked, "chosen": chosen, "rejected": rejected} for asked, chosen, rejected in texts]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    said = checked(tmp_path / "p.jsonl")
    (sheet,) = said.files
    assert sheet.rows == len(texts) == sheet.pairs + sheet.bad
    assert all("\x1b" not in line and "\n" not in line for line in check_lines(said))
    json.dumps(asdict(said), allow_nan=False)


# --- Parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("plain", "also plain", True),
        ("<think>\na\n</think>\n\nx", "<think>\nb and c\n</think>\n\ny", True),
        ("<think>\na\n</think>\n\nx", "y", False),
        ("<think>\na\n</think>\n\nx", "<think>\n\n</think>\n\ny", False),
        ("<think>\na\n</think>\n\nx", "<think>\na\n</think>\ny", False),
        ("<think>\na\n</think>\n\nx", "<think>\na\nx", False),
        ("a</think>\nx", "<think>a</think>\nx", False),
        ("<thinking>a</thinking>x", "<think>a</think>x", False),
    ],
)
def test_marks_of_reasoning_are_told_apart(one: str, other: str, alike: bool) -> None:
    assert (thinking.form(one) == thinking.form(other)) is alike


@given(st.integers(0, 1000), st.floats(0.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_likeness_is_estimated_well_enough_to_be_judged(seed: int, shared: float) -> None:
    rng = random.Random(seed)
    one = [f"w{rng.randrange(10**6)}" for _ in range(200)]
    other = [*one[: int(200 * shared)], *(f"v{rng.randrange(10**6)}" for _ in range(200 - int(200 * shared)))]
    signatures = Signatures()
    signatures.add(one)
    signatures.add(other)
    first, second = (set(words) | set(pairwise(words)) for words in (one, other))
    jaccard = len(first & second) / len(first | second)
    found = nearest(signatures.array(), 0.8)[1] == 0
    if jaccard > 0.95 or jaccard < 0.6:
        assert found == (jaccard > 0.95)


def test_texts_without_words_are_not_near_each_other() -> None:
    signatures = Signatures()
    for _ in range(3):
        signatures.add([])
    assert list(nearest(signatures.array(), 0.8)) == [-1, -1, -1]


# --- The page that explains it ----------------------------------------------------------------------------------------


def test_the_docs_name_every_finding_with_its_threshold_and_every_format() -> None:
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", page, re.MULTILINE))
    assert list(listed) == list(KINDS)
    assert {name: float(value) for name, value in listed.items()} == {name: DEFAULTS[name] for name in KINDS}
    formats = page[page.index("## Formats") : page.index("## Findings")]
    assert set(PAIR_FORMATS) <= set(re.findall(r"`([\w-]+)`", formats))
