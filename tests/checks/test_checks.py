"""What `cai check` finds in preference pairs: each planted fault, in every format, and nothing in a clean set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from foreign_pairs import FORMATS, Plain, write, write_rows
from planted_pairs import FAULTS, NAMED, ROWS, checked, clean, missed, of
from typer.testing import CliRunner, Result

from cai.checks.run.check import known_kinds
from cai.cli import check
from cai.cli.check_table import check_lines
from cai.core.errors import GateFailed, Mistake

KINDS = known_kinds()

# --- Planted faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_a_clean_set_is_met_with_silence(tmp_path: Path, format: str) -> None:
    said = checked(write(tmp_path / "train.jsonl", format, clean(ROWS)))
    assert (missed(said), said.passed, said.pairs) == (set(), True, ROWS)
    assert check_lines(said)[-1] == "nothing past a threshold"
    faults = [finding.what for finding in said.findings if finding.rows and not KINDS[finding.what].tendency]
    assert faults == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_in_every_format(tmp_path: Path, fault: str, format: str) -> None:
    plant, along = FAULTS[fault]
    said = checked(write(tmp_path / "train.jsonl", format, plant(clean(ROWS))))
    name = NAMED.get(fault, fault)
    found = of(said, name)
    assert not found.passed
    assert found.rows
    assert found.examples
    assert missed(said) - {name} <= along


def test_every_kind_of_finding_is_planted() -> None:
    elsewhere = {"bad_rows", "no_pairs", "no_prompt", "several_turns", "leakage", "near_leakage"}
    elsewhere |= {"inverted_scores", "score_outliers"}
    assert {NAMED.get(fault, fault) for fault in FAULTS} | elsewhere == set(KINDS)


def test_rows_that_are_no_pair_are_counted_with_their_reasons(tmp_path: Path) -> None:
    listed = [*map(FORMATS["trl"], clean(5)), {"text": "a"}, {"prompt": [], "chosen": None}]
    said = checked(write_rows(tmp_path / "p.jsonl", listed))
    found = of(said, "bad_rows")
    assert (found.rows, found.examples, found.passed) == (2, ("p.jsonl:6", "p.jsonl:7"), False)
    assert found.saw[0] == "p.jsonl:6 has no prompt; it has 'text'"
    assert [(sheet.rows, sheet.pairs, sheet.bad) for sheet in said.files] == [(7, 5, 2)]


@pytest.mark.parametrize("content", ["", "\n\n", "[]", '{"text": "a"}\n'])
def test_a_file_without_pairs_does_not_pass(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    assert "no_pairs" in missed(checked(tmp_path / "p.json"))


def test_a_missing_prompt_and_a_fork_before_the_end_are_found(tmp_path: Path) -> None:
    listed = [FORMATS["trl"](pair) for pair in clean(10)]
    listed[3]["prompt"] = []
    listed[4]["chosen"] += [{"role": "user", "content": "go on"}, {"role": "assistant", "content": "no"}]
    said = checked(write_rows(tmp_path / "p.jsonl", listed))
    assert missed(said) == {"no_prompt", "several_turns"}
    assert of(said, "several_turns").examples == ("p.jsonl:5",)


# --- Splits -----------------------------------------------------------------------------------------------------------


def leaking(train: list[Plain], test: list[Plain]) -> list[Plain]:
    """`test` with a prompt of `train` in other case, and with one in which a word was added."""
    shouted = Plain((("user", train[0].asked[0][1].upper() + " "),), test[0].chosen, test[0].rejected)
    added = Plain((("user", train[1].asked[0][1] + " Please."),), test[1].chosen, test[1].rejected)
    return [shouted, added, *test[2:]]


@pytest.mark.parametrize("format", FORMATS)
def test_prompts_in_two_splits_are_found_in_every_format(tmp_path: Path, format: str) -> None:
    train, test = clean(ROWS), clean(20, seed=1)
    paths = write(tmp_path / "train.jsonl", format, train), write(tmp_path / "test.jsonl", format, test)
    assert missed(checked(*paths)) == set()
    write(tmp_path / "test.jsonl", format, leaking(train, test))
    for said in (checked(*paths), checked(tmp_path)):
        assert missed(said) == {"leakage", "near_leakage"}
        assert of(said, "leakage").saw == ("test.jsonl:1 as train.jsonl:1",)
        assert of(said, "near_leakage").saw == ("test.jsonl:2 as train.jsonl:2",)
        assert of(said, "leakage").value == 1 / 20


def test_splits_named_by_rows_are_splits_too(tmp_path: Path) -> None:
    train, test = clean(ROWS), clean(20, seed=1)
    listed = [FORMATS["trl"](pair) | {"split": "train"} for pair in train]
    listed += [FORMATS["trl"](pair) | {"split": "test"} for pair in leaking(train, test)]
    said = checked(write_rows(tmp_path / "all.jsonl", listed))
    assert said.splits == {"train": ROWS, "test": 20}
    assert {"leakage", "near_leakage"} <= missed(said)


def test_several_pairs_of_one_prompt_in_one_split_are_no_leak(tmp_path: Path) -> None:
    again = [Plain(one.asked, other.chosen, other.rejected) for one, other in zip(clean(20), clean(20, 2), strict=True)]
    train = write(tmp_path / "train.jsonl", "trl", [*clean(20), *again])
    assert missed(checked(train, write(tmp_path / "test.jsonl", "trl", clean(20, seed=1)))) == set()


# --- Hostile input ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["\n", " ", "<think>", "I ", "a'", "sorry ", "\n\nHuman:", "漢"])
def test_long_texts_of_one_thing_take_no_long_time(tmp_path: Path, unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    pair = Plain((("user", "Why?"),), text, text + "x")
    checked(write(tmp_path / "p.jsonl", "trl-text", [pair]))


def test_signs_in_the_data_cannot_steer_the_terminal(tmp_path: Path) -> None:
    listed = [FORMATS["trl"](pair) | {"id": "\x1b[31mred\n\u202e"} for pair in FAULTS["identical"][0](clean(4))]
    shown = "\n".join(check_lines(checked(write_rows(tmp_path / "p.jsonl", listed))))
    assert "red" in shown
    assert not any(sign in shown for sign in "\x1b\u202e")


# --- The command ------------------------------------------------------------------------------------------------------


def command(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(check.check_command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_says_what_it_found_and_does_not_pass(tmp_path: Path) -> None:
    plant, _ = FAULTS["identical"]
    path = write(tmp_path / "p.jsonl", "sharegpt", plant(clean(ROWS)))
    done = command(path)
    assert isinstance(done.exception, GateFailed)
    assert done.stdout.startswith(f"{path}: sharegpt (LLaMA-Factory")
    assert "identical: both answers are the same" in done.stdout
    assert "such as p.jsonl:1, p.jsonl:31" in done.stdout
    assert command(path, "-o", "identical=1").exit_code == 0


def test_json_is_one_document_whether_it_passes_or_not(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", "trl", clean(3))
    said = json.loads(command(path, "--json").stdout)
    assert (said["passed"], said["pairs"], said["splits"]) == (True, 3, {"p": 3})
    assert [finding["what"] for finding in said["findings"]] == [name for name in KINDS if name not in UNASKED]
    (tmp_path / "p.jsonl").write_text("")
    assert json.loads(command(path, "--json").stdout)["passed"] is False


UNASKED = {"leakage", "near_leakage", "inverted_scores", "score_outliers"}
"""What is not looked for in one split without scores."""


# --- A tokenizer counts ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tokenizer_counts_where_there_is_one(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=bytewise).save_pretrained(tmp_path / "model")
    path = write(tmp_path / "p.jsonl", "trl", [Plain((("user", "four"),), "abcdefgh", "abcdefgX")])
    assert of(checked(path, max_length=11, tokenizer=tmp_path / "model"), "identical_when_cut").rows == 1
    assert of(checked(path, max_length=12, tokenizer=tmp_path / "model"), "identical_when_cut").rows == 0
    with pytest.raises(Mistake, match="has no tokenizer"):
        checked(path, tokenizer=tmp_path / "nowhere")


# --- Published sets ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "accuracy"), [("hhh_438", 0.64), ("pandalm_test", 0.67), ("hh_harmless_test", 0.45)])
def test_the_length_baseline_is_the_published_one(data: Path, name: str, accuracy: float) -> None:
    found = of(checked(data / "pairs" / f"{name}.jsonl"), "always_longer")
    assert round(found.value, 2) == accuracy
    assert found.low is not None and found.high is not None and found.low < found.value < found.high


@pytest.mark.slow
def test_what_is_known_of_the_published_sets_is_found(data: Path) -> None:
    found = {path.stem: missed(checked(path)) for path in sorted((data / "pairs").glob("*.jsonl"))}
    assert found == {
        "coconot_pref": {"length_skew", "refusals", "boilerplate"},  # every pair rewards compliance
        "hh_harmless_test": set(),
        "hhh_438": {"always_longer", "near_duplicates"},
        "icai_synthetic": {"duplicates"},  # `mixed` repeats the other two categories
        "llmbar": {"duplicates", "near_duplicates"},
        "pandalm_test": {"always_longer", "duplicates", "near_duplicates"},
        "truthfulqa": {"always_longer"},
    }


def test_files_of_the_same_name_in_several_folders_are_several_splits(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "pairs.jsonl", "trl", clean(20))
    said = checked(tmp_path / "train" / "pairs.jsonl", tmp_path / "test" / "pairs.jsonl")
    assert said.splits == {"train/pairs": 20, "test/pairs": 20}
    assert of(said, "leakage").value == 1.0
