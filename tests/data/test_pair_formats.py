"""Preference pairs from everybody's files: every row becomes a pair, or a failure that says where and why."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from foreign_pairs import FORMATS, Plain, write, write_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted_pairs import clean

from cai.core.errors import Mistake
from cai.core.types import Failure, Message
from cai.data.pair_formats import PAIR_FORMATS
from cai.data.pairs import Preference, data_files, open_pairs, read_pairs


def read(path: Path, format: str = "") -> tuple[list[Preference], list[Failure]]:
    found = list(read_pairs(path, format))
    return [row for row in found if isinstance(row, Preference)], [row for row in found if isinstance(row, Failure)]


def one(tmp_path: Path, row: object, format: str = "") -> Preference:
    pairs, bad = read(write_rows(tmp_path / "p.jsonl", [row]), format)
    assert not bad, bad[0].message
    return pairs[0]


def refused(tmp_path: Path, row: object, format: str = "", kind: str = "bad_row") -> str:
    pairs, bad = read(write_rows(tmp_path / "p.jsonl", [row]), format)
    assert not pairs
    assert (bad[0].id, bad[0].stage, bad[0].kind) == ("p.jsonl:1", "read", kind)
    return bad[0].message


def user(text: str) -> Message:
    return Message("user", text)


TALK = Plain((("user", "Is it far?"), ("assistant", "Not at all."), ("user", "How far?")), "Two miles.", "Dunno.")
ONE_TURN = {"trl-text", "alpaca", "orca", "pandalm", "ultrafeedback"}


def test_every_format_is_tried() -> None:
    assert FORMATS.keys() == PAIR_FORMATS.keys()


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_pairs_from_every_format(tmp_path: Path, format: str) -> None:
    wanted = [*clean(5), *([] if format in ONE_TURN else [TALK])]
    file = open_pairs(write(tmp_path / "train.jsonl", format, wanted))
    found = [pair for pair in file.pairs if isinstance(pair, Preference)]
    assert (file.format, file.split) == (format, "train")
    assert [(pair.chosen, pair.rejected) for pair in found] == [(pair.chosen, pair.rejected) for pair in wanted]
    assert [pair.prompt for pair in found] == [tuple(Message(*turn) for turn in pair.asked) for pair in wanted]  # type: ignore[arg-type]
    assert {pair.turns for pair in found} == {1}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "json of lines", "jsonl.gz", "parquet", "arrow"])
def test_the_same_pairs_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    import pyarrow
    from pyarrow import ipc, parquet

    listed = [FORMATS["trl"](pair) for pair in [*clean(5), TALK]]
    text = "".join(json.dumps(row) + "\n" for row in listed)
    path, table = tmp_path / f"train.{suffix.split()[0]}", pyarrow.Table.from_pylist(listed)
    match suffix:
        case "parquet":
            parquet.write_table(table, path)
        case "arrow":
            with ipc.new_stream(path, table.schema) as sink:
                sink.write_table(table)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(text.encode()))
        case "json":
            path.write_text(json.dumps(listed, indent=1))
        case _:
            path.write_text(text)
    pairs, bad = read(path)
    assert not bad
    assert [pair.chosen for pair in pairs] == [row["chosen"][0]["content"] for row in listed]
    assert open_pairs(path).split == "train"


# --- What single formats have of their own ----------------------------------------------------------------------------


def test_a_transcript_is_cut_where_the_last_answer_begins(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi: there\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:"
    pair = one(tmp_path, {"chosen": start + " Because.", "rejected": start + ""})
    assert pair.prompt == (user("Hi: there"), Message("assistant", "Hello."), user("Why?"))
    assert (pair.chosen, pair.rejected) == ("Because.", "")


def test_conversations_that_part_early_are_kept_with_all_their_turns(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant:"
    pair = one(tmp_path, {"chosen": start + " A\n\nHuman: more\n\nAssistant: B", "rejected": start + " C"})
    assert pair.prompt == (user("Hi"),)
    assert (pair.chosen, pair.rejected, pair.turns) == ("assistant: A\n\nuser: more\n\nassistant: B", "C", 3)


def test_answers_to_different_prompts_are_no_pair(tmp_path: Path) -> None:
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "\n\nHuman: Ho\n\nAssistant: A"}
    assert "answer different prompts" in refused(tmp_path, row)


def test_identical_sides_are_still_a_pair(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    pair = one(tmp_path, {"chosen": turns, "rejected": turns})
    assert (pair.prompt, pair.chosen, pair.rejected) == ((user("Hi"),), "Ho", "Ho")


def test_a_prompt_that_is_only_in_the_texts_is_what_they_share(tmp_path: Path) -> None:
    pair = one(tmp_path, {"chosen": "The sky is blue.", "rejected": "The sky is green."})
    assert (pair.prompt, pair.chosen, pair.rejected) == ((user("The sky is"),), " blue.", " green.")


def test_a_system_turn_comes_first(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "be brief"}, {"from": "human", "value": "Hi"}]
    sides = {side: {"from": "gpt", "value": side} for side in ("chosen", "rejected")}
    assert [turn.role for turn in one(tmp_path, {"conversations": turns, **sides}).prompt] == ["system", "user"]
    alpaca = {
        "system": "be brief",
        "history": [["a", "b"]],
        "instruction": "Hi",
        "input": "x",
        "chosen": "c",
        "rejected": "r",
    }
    assert [turn.content for turn in one(tmp_path, alpaca).prompt] == ["be brief", "a", "b", "Hi\n\nx"]


def test_an_answer_that_plays_the_user_stays_an_answer(tmp_path: Path) -> None:
    listed = [FORMATS["trl-text"](pair) for pair in clean(3)] + [
        {"prompt": "Hi", "chosen": "Human: me", "rejected": "no"}
    ]
    pairs, bad = read(write_rows(tmp_path / "p.jsonl", listed))
    assert (len(bad), pairs[-1].chosen) == (0, "Human: me")


@pytest.mark.parametrize(
    ("votes", "p", "first_wins"),
    [((1, 1, 1), 1.0, True), ((2, 2, 2), 1.0, False), ((2, 2, 0), 5 / 6, False), ((1, 1, 2), 2 / 3, True)],
)
def test_pandalm_votes_say_which_answer_is_better(tmp_path: Path, votes: Any, p: float, first_wins: bool) -> None:
    pair = one(tmp_path, pandalm(votes))
    assert pair.p_chosen == pytest.approx(p)
    assert (pair.chosen == "first") is first_wins


@pytest.mark.parametrize("votes", [(0, 0, 0), (0, 1, 2), (1, 0, 0), (0, 0, 2)])
def test_pandalm_votes_without_a_majority_are_a_tie(tmp_path: Path, votes: Any) -> None:
    assert one(tmp_path, pandalm(votes)).tie


def pandalm(votes: tuple[int, int, int]) -> dict[str, Any]:
    named = {f"annotator{number}": vote for number, vote in enumerate(votes, 1)}
    return {"instruction": "Say it.", "input": "", "response1": "first", "response2": "second", **named}


def test_unknown_votes_are_no_verdict(tmp_path: Path) -> None:
    assert "not 0, 1 or 2" in refused(tmp_path, pandalm((1, 1, 7)))


TEXT = {"prompt": "Hi", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("columns", "scores", "margin", "p"),
    [
        ({"score_chosen": 8.0, "score_rejected": 5}, (8, 5), 3, None),
        ({"chosen_score": 8.0, "rejected_score": 5}, (8, 5), 3, None),
        ({"chosen-rating": 4, "rejected-rating": 5}, (4, 5), -1, None),
        ({"chosen_reward": 1, "rejected_reward": None}, None, None, None),
        ({"margin": 0.7, "p_chosen": 0.8}, None, 0.7, 0.8),
        ({"score_chosen": "8", "score_rejected": True}, None, None, None),
    ],
)
def test_scores_are_read_by_any_of_their_names(tmp_path: Path, columns: Any, scores: Any, margin: Any, p: Any) -> None:
    pair = one(tmp_path, TEXT | columns)
    assert (pair.scores, pair.margin, pair.p_chosen) == (scores, margin, p)


def test_a_score_that_is_no_number_is_no_score(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "Hi", "chosen": "a", "rejected": "b", "score_chosen": NaN, "score_rejected": 1e999}\n')
    assert read(path)[0][0].scores is None


@pytest.mark.parametrize("p", [1.5, -0.1, "high", True])
def test_a_probability_outside_of_0_and_1_is_a_bad_label(tmp_path: Path, p: object) -> None:
    assert "not a probability" in refused(tmp_path, TEXT | {"p_chosen": p}, kind="bad_label")
    assert "not a weight" in refused(tmp_path, TEXT | {"weight": "high" if p is True else -1}, kind="bad_label")


def test_ids_and_splits_come_from_the_row_and_else_from_the_place(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00002.jsonl"
    write_rows(path, [TEXT | {"id": 7, "split": "test", "category": "honest"}, TEXT])
    named, placed = read(path)[0]
    assert (named.id, named.split, named.category) == ("7", "test", "honest")
    assert (placed.id, placed.split, placed.category) == ("train-00000-of-00002.jsonl:2", "train", None)


# --- Files and folders ------------------------------------------------------------------------------------------------


def test_a_folder_is_its_data_files(tmp_path: Path) -> None:
    for name in ("train.jsonl", "data/test-00000-of-00001.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "trl", clean(2))
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert [open_pairs(file).split for file in data_files(tmp_path)] == ["test", "train"]


def test_a_run_is_its_pairs(tmp_path: Path) -> None:
    from planted_run import pair, plant, prompt

    run = plant(tmp_path / "run", pairs=[pair(prompt("a"), "short", "long and long")])
    file = open_pairs(data_files(run.path)[0])
    (found,) = file.pairs
    assert isinstance(found, Preference)
    assert (file.format, found.chosen, found.prompt, found.p_chosen) == ("pairs", "short", (user("What is a?"),), 1.0)


@pytest.mark.parametrize("format", ["trl", "jsonl"])
def test_our_exports_are_read_as_they_are(tmp_path: Path, format: str) -> None:
    from planted_run import pair, plant, prompt

    from cai.data.splits import make_split
    from cai.pipeline.export import write_export

    run = plant(tmp_path / "run", pairs=[pair(prompt(f"p{n}"), "short", "long and long") for n in range(20)])
    write_export(run, format, split=make_split(0.3, 0))
    pairs, bad = read(run.path / "export" / format)
    assert (len(pairs), bad) == (20, [])
    assert {pair.split for pair in pairs} == {"train", "test"}
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("short", "long and long")}


def test_a_format_may_be_named(tmp_path: Path) -> None:
    row = {"prompt": "x", "chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "\n\nHuman: Hi\n\nAssistant: B"}
    assert one(tmp_path, row).prompt == (user("Hi"),)
    assert one(tmp_path, row, "trl-text").prompt == (user("x"),)
    with pytest.raises(Mistake, match="did you mean 'nemo'"):
        read(tmp_path / "p.jsonl", "nimo")


def test_a_row_of_another_format_is_noticed(tmp_path: Path) -> None:
    listed = [*map(FORMATS["trl"], clean(3)), FORMATS["sharegpt"](clean(1)[0])]
    pairs, bad = read(write_rows(tmp_path / "p.jsonl", listed))
    assert len(pairs) == 3
    assert bad[0].message.startswith("p.jsonl:4 has no prompt; it has 'conversations'")


@pytest.mark.parametrize(
    ("name", "what"),
    [("nowhere.jsonl", "cannot be read"), ("x.txt", "not a data file"), ("empty", "holds no data files")],
)
def test_what_cannot_be_opened_is_a_mistake(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "x.txt").write_text("{}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Mistake, match=what):
        read(tmp_path / name)


# --- Hostile input ----------------------------------------------------------------------------------------------------

GOOD = json.dumps(TEXT).encode()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"prompt": "' + b"x" * 10_000_000 + b'"}', "longer than 4 MiB"),
        (b'{"prompt": "\xff\xfe", "chosen": "a", "rejected": "b"}', "not UTF-8"),
        (b'{"prompt": "Hi", "chosen": "\\ud83d", "rejected": "b"}', "not valid Unicode"),
        (b'{"prompt": "Hi", "chosen": "a", "rejected"', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'"text"', "is a str"),
        (b"null", "is a NoneType"),
        (b'{"topic": "Hi"}', "has no prompt; it has 'topic'"),
        (b'{"prompt": "Hi", "chosen": null, "rejected": "b"}', "no chosen answer"),
        (b'{"prompt": "Hi", "chosen": ["a"], "rejected": "b"}', "not an object"),
        (b'{"prompt": "Hi", "chosen": {"a": 1}, "rejected": "b"}', "no role"),
        (b'{"prompt": {"a": 1}, "chosen": "a", "rejected": "b"}', "no role"),
        (b'{"prompt": "Hi", "chosen": 1, "rejected": 2}', "is a int"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.timeout(20)
def test_a_bad_line_costs_one_row(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n".join([GOOD, line, GOOD]))
    pairs, bad = read(path)
    assert (len(pairs), len(bad)) == (2, 1)
    assert bad[0].message.startswith("p.jsonl:2 ")
    assert why in bad[0].message
    assert len(bad[0].message) < 500


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["prompt", "chosen", "rejected", "conversations", "completions", "history", "id", "margin"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "rank"]), inner, max_size=3)
                ),
                max_leaves=6,
            ),
        )
        | st.integers(),
        max_size=4,
    ),
    st.sampled_from(["", *PAIR_FORMATS]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_becomes_a_pair_or_a_failure(tmp_path: Path, listed: list[object], format: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    pairs, bad = read(path, format)
    assert len(pairs) + len(bad) == len(listed)
    assert all(failure.message.startswith(f"{failure.id} ") for failure in bad)


# --- Published samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format", "pairs"),
    [
        ("hh_rlhf_raw.jsonl", "hh-rlhf", 40),
        ("llamafactory_dpo_sharegpt.json", "sharegpt", 60),
        ("llamafactory_v1_dpo.jsonl", "llamafactory-v1", 5),
        ("nemo_dpo.jsonl", "nemo", 10),
        ("pandalm_raw.json", "pandalm", 40),
        ("torchtune_hh_rlhf_tiny.json", "trl-implicit", 1),
    ],
)
def test_published_samples_are_read_whole(data: Path, name: str, format: str, pairs: int) -> None:
    file = open_pairs(data / "formats" / name)
    found = list(file.pairs)
    assert (file.format, len(found)) == (format, pairs)
    assert all(isinstance(pair, Preference) and pair.prompt and pair.chosen and pair.turns == 1 for pair in found)
    assert all(
        "<extra_id" not in pair.chosen + pair.prompt[0].content for pair in found if isinstance(pair, Preference)
    )


def test_raw_and_published_forms_of_the_same_pairs_agree(data: Path) -> None:
    for raw, published in (("hh_rlhf_raw.jsonl", "hh_harmless_test.jsonl"), ("pandalm_raw.json", "pandalm_test.jsonl")):
        known = {(pair.prompt, pair.chosen, pair.rejected) for pair in read(data / "pairs" / published)[0]}
        found = {(pair.prompt, pair.chosen, pair.rejected) for pair in read(data / "formats" / raw)[0]}
        assert len(found & known) >= 0.9 * len(found), raw
