"""From rows to a folder: which rows are learned from, which options are refused, what a training says. No torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import planted_run
import pytest
from ruamel.yaml import YAML

from cai.backends.local.model_folders import model_folder
from cai.core import plugins
from cai.core.config import overridden, read_yaml
from cai.core.errors import Mistake
from cai.core.plugin_types import Method
from cai.core.plugins import PACKAGE
from cai.data.training_rows import TrainingRows, answer_columns, gather_training_rows
from cai.report.cards.model import model_card
from cai.runs.files import replaced_folder, restored
from cai.runs.folder import Run
from cai.runs.training import PROVENANCE, InitialModel, TrainingSettingsRecord, read_provenance
from cai.train.reward_model.evaluation import measures
from cai.train.reward_model.length_bias import fit_biases, markup_feature, preamble_feature, terms
from cai.train.run.train import _begun, _Metrics, _mix, _rewards, options_of
from cai.train.trl.checkpoints import last_checkpoint, seal
from cai.train.trl.datasets import labelled_rows, preferences
from cai.train.trl.tokenizer import open_tokenizer

SUPERVISED = ("sft", "reward", "dpo", "kto", "orpo")


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(number: int = 0, **changed: Any) -> dict[str, Any]:
    row = {"prompt": f"What is thing {number}?", "chosen": f"thing {number}", "rejected": f"no thing {number}"}
    return row | changed


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def words(row: dict[str, Any]) -> int:
    texts = [turn["content"] for side in ("prompt", *answer_columns(row)) for turn in row[side]]
    return sum(len(text.split()) for text in texts)


def read(path: Path, kind: Any = "pairs", **changed: Any) -> TrainingRows:
    return gather_training_rows(path, kind, **({"tokens": words, "max_length": 50, "held_out": 0.0} | changed))


# --- Rows -------------------------------------------------------------------------------------------------------------


def test_every_row_is_used_held_out_or_left_out_for_a_reason(tmp_path: Path) -> None:
    file = written(
        tmp_path / "rows.jsonl",
        *(pair(number) for number in range(20)),
        pair(20, chosen="same", rejected="same"),
        pair(21, chosen="long " * 60),
        pair(22, rejected="  "),
        {"prompt": "half a row"},
        "not json",
    )
    found = read(file, held_out=0.3)
    assert found.left_out == Counter(identical=1, too_long=1, empty=1, wrong=2)
    assert found.read == 25 == len(found.rows) + len(found.held_out) + found.left_out.total()
    assert "67 tokens, and max_length is 50" in found.examples["too_long"]
    assert "rows.jsonl:24" in found.examples["wrong"]


def test_a_label_below_one_half_is_turned_round(tmp_path: Path) -> None:
    row = read(written(tmp_path / "r.jsonl", pair(p_chosen=0.2, margin=-2.0, weight=3))).rows[0]
    assert (row["chosen"][0]["content"], row["p_chosen"]) == ("no thing 0", 0.8)
    assert (row["margin"], row["weight"]) == (2.0, 3.0)


@pytest.mark.parametrize("changed", [{"p_chosen": 1.5}, {"p_chosen": -0.1}, {"p_chosen": "high"}, {"weight": -1}])
def test_a_label_that_is_no_probability_stops_everything_by_file_and_row(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    file = written(tmp_path / "r.jsonl", pair(0), pair(1), pair(2, **changed))
    with pytest.raises(Mistake, match=r"r\.jsonl:3 .* not a (probability|weight)"):
        read(file)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("messages", pair()),
        ("labels", {"prompt": "a", "completion": "b"}),
        ("pairs", {"prompt": "a", "completion": "b"}),
    ],
)
def test_rows_of_the_wrong_kind_are_one_mistake_that_says_what_is_needed(tmp_path: Path, kind: str, row: Any) -> None:
    with pytest.raises(Mistake, match=r"none of 2 rows can be trained on: r\.jsonl:1.*rows need prompt"):
        read(written(tmp_path / "r.jsonl", row, row), kind)


def test_an_empty_file_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="holds no rows"):
        read(written(tmp_path / "r.jsonl"))
    with pytest.raises(Mistake, match="there is no such file"):
        read(tmp_path / "absent.jsonl")


def test_pairs_become_thumbs_and_a_tie_neither(tmp_path: Path) -> None:
    found = read(written(tmp_path / "r.jsonl", pair(0), pair(1, p_chosen=0.5), pair(2, p_chosen=0.1)), "labels")
    said = [(row["completion"][0]["content"], row["label"]) for row in found.rows]
    assert said == [("thing 0", True), ("no thing 0", False), ("no thing 2", True), ("thing 2", False)]
    assert found.left_out == Counter(tie=1)


def test_completions_are_read_from_columns_and_from_messages(tmp_path: Path) -> None:
    talk = [*turn("system", "Be kind."), *turn("user", "Hi"), *turn("assistant", "Hello")]
    rows = read(
        written(tmp_path / "r.jsonl", {"prompt": "Hi", "completion": "Hello"}, {"messages": talk}), "messages"
    ).rows
    assert [row["completion"] for row in rows] == [turn("assistant", "Hello")] * 2
    assert rows[1]["prompt"] == talk[:2]


def test_a_conversation_is_never_on_both_sides(tmp_path: Path) -> None:
    rows = [pair(number % 12, chosen=f"answer {number}") for number in range(60)]
    rows += [
        row | {"prompt": row["prompt"].upper().replace(" ", "  ")} for row in rows
    ]  # case and spacing do not count
    found = read(written(tmp_path / "r.jsonl", *rows), held_out=0.4)

    def asked(part: list[Any]) -> set[str]:
        return {" ".join(row["prompt"][0]["content"].casefold().split()) for row in part}

    assert asked(found.rows) and asked(found.held_out)
    assert not asked(found.rows) & asked(found.held_out)


def test_a_split_that_the_data_names_is_kept(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", pair(0), pair(1))
    written(tmp_path / "test.jsonl", pair(2))
    found = read(tmp_path, held_out=0.9)
    assert [len(found.rows), len(found.held_out)] == [2, 1]


def test_a_file_called_test_alone_is_learned_from(tmp_path: Path) -> None:
    assert len(read(written(tmp_path / "test.jsonl", pair(0), pair(1))).rows) == 2


async def test_a_run_gives_rows_of_every_kind_and_splits_them_as_its_exports(recipe_of: Any, tmp_path: Path) -> None:
    from cai.pipeline.generate import generate
    from cai.runs.folder import Run

    run = Run(tmp_path / "run")
    await generate(recipe_of(export={"formats": ["trl"], "test_share": 0.4}), run)
    by_kind = {kind: read(run.path, kind, max_length=9999) for kind in ("pairs", "messages", "labels", "prompts")}
    assert all(found.rows and found.held_out for found in by_kind.values())
    assert by_kind["pairs"].constitutions == {run.manifest.as_json()["constitution"]["digest"]}
    assert len(by_kind["labels"].rows) == 2 * len(by_kind["pairs"].rows)
    exported = read(run.path / "export" / "trl", max_length=9999)
    answers = lambda found: sorted(row["chosen"][0]["content"] for row in found.rows)  # noqa: E731
    assert answers(exported) == answers(by_kind["pairs"])
    revised = read(run.path, "messages", max_length=9999, revisions="all")
    assert len(revised.rows) > len(by_kind["messages"].rows)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    planted_run.plant(tmp_path, status="interrupted")
    with pytest.raises(Mistake, match="is not finished"):
        read(tmp_path)


def test_helpful_rows_are_mixed_in_the_stated_share(tmp_path: Path) -> None:
    rows = read(written(tmp_path / "a.jsonl", *(pair(n) for n in range(30))))
    helpful = read(written(tmp_path / "b.jsonl", *(pair(100 + n) for n in range(50))))
    _mix(rows, helpful, "b", 0.25, seed=0)
    mixed = [row for row in rows.rows if row["id"].startswith("mix:")]
    assert (len(mixed), len(rows.rows)) == (10, 40)
    with pytest.raises(Mistake, match="has 50 usable rows, and mix_ratio 0.9 needs"):
        _mix(rows, helpful, "b", 0.9, seed=0)


def test_weights_have_mean_one_and_ties_go_where_labels_are_taken_for_sure() -> None:
    rows = [
        {**pair(n), "id": str(n), "p_chosen": p, "weight": w} for n, (p, w) in enumerate([(1, 1), (0.5, 3), (0.7, 2)])
    ]
    soft = preferences(rows, soft=True)
    assert [row["weight"] for row in soft] == [0.5, 1.5, 1.0]
    assert len(preferences(rows, soft=False)) == 2


def test_labelled_rows_come_in_an_order_of_chance_that_repeats() -> None:
    rows = [{**pair(n), "id": str(n), "completion": "x", "label": label} for label in (True, False) for n in range(40)]
    first, again, other = (labelled_rows(rows, seed) for seed in (0, 0, 1))
    labels = [row["label"] for row in first]
    assert first == again != other
    assert 10 < sum(labels[:40]) < 30  # not all good ones first


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", plugins.plugin_names("train"))
def test_every_method_has_a_record_and_says_which_option_was_meant(name: str) -> None:
    method = plugins.find_plugin("train", name, Method)
    assert method.about and {"learning_rate", "max_length", "batch_size", "trl"} <= set(method.options.model_fields)
    with pytest.raises(Mistake, match="unknown key 'lerning_rate'; did you mean 'learning_rate'"):
        options_of(name, {"lerning_rate": 1})


def test_options_come_from_the_command_line_as_yaml() -> None:
    given = overridden({}, ("learning_rate=1e-5", "trl.warmup_steps=5", "soft=false"))
    assert given == {"learning_rate": 1e-5, "trl": {"warmup_steps": 5}, "soft": False}
    assert options_of("dpo", given)[1].trl == {"warmup_steps": 5}
    with pytest.raises(Mistake, match="not of the form key=value"):
        overridden({}, ("beta",))


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("kto", {"batch_size": 1}, "batch_size"),
        ("reward", {"members": 3, "r": 0}, "share a backbone"),
        ("reward", {"length": "short"}, "margin"),
        ("dpo", {"loss": "sigmod"}, "loss"),
        ("sft", {"learning_rate": 0}, "learning_rate"),
    ],
)
def test_options_that_cannot_be_are_refused(method: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(Mistake, match=said):
        options_of(method, given)


def test_the_supervised_methods_are_all_there() -> None:
    assert set(SUPERVISED) <= set(plugins.plugin_names("train"))


# --- Length and other nuisances ---------------------------------------------------------------------------------------


def rated(count: int = 400) -> list[dict[str, Any]]:
    """Pairs whose label is sigmoid of 2 per hundred words more: length is all there is."""
    from math import exp

    rows = []
    for number in range(count):
        long, short = 20 + (number * 37) % 200, 20 + (number * 91) % 200
        p = 1 / (1 + exp(-2 * (long - short) / 100))
        row = {"chosen": turn("assistant", "w " * long), "rejected": turn("assistant", "w " * short), "p_chosen": p}
        rows.append(row | {"id": str(number), "prompt": turn("user", str(number))})
    return rows


def test_the_fitted_term_is_what_length_alone_says() -> None:
    fitted = fit_biases(rated(), ["length"])
    assert fitted["length"] == pytest.approx(2, abs=0.05)
    explained = terms(rated(3), fitted)
    assert explained[1] == pytest.approx(fitted["length"] * (57 - 111) / 100)


def test_markup_and_preambles_are_seen() -> None:
    assert markup_feature("Steps:\n- one\n2. two\n# End") == 0.75
    assert markup_feature("a - b\nplain") == 0
    assert preamble_feature("Great question! It is") == 1 == preamble_feature("Here is the list:")
    assert preamble_feature("The great question is") == 0


# --- Evaluation -------------------------------------------------------------------------------------------------------


def test_a_reward_that_is_length_scores_as_always_longer_and_nothing_where_chosen_is_shorter() -> None:
    rows = [row | {"p_chosen": 1.0} for row in rated(200)]
    rewards = [(float(len(row["chosen"][0]["content"])), float(len(row["rejected"][0]["content"]))) for row in rows]
    said = measures(rows, rewards)
    assert said["accuracy"] == said["always_longer"]
    assert said["better_than_always_longer"]["value"] == 0
    assert said["accuracy_where_chosen_is_shorter"]["value"] == 0
    assert said["correlation_with_length"]["value"] == pytest.approx(1)


def test_a_perfect_reward_is_right_everywhere_and_ties_do_not_count() -> None:
    rows = [row | {"p_chosen": 0.5 if number < 20 else 0.9} for number, row in enumerate(rated(100))]
    said = measures(rows, [(5.0, -5.0)] * 100)
    assert said["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 80}
    assert said["correlation_with_length"]["value"] is not None and abs(said["correlation_with_length"]["value"]) < 0.5
    assert said["nll"]["value"] < 0.001


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replaced_folder(tmp_path / "model") as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with replaced_folder(tmp_path / "model") as folder:
        (folder / "all").touch()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["all"]


def model_before(folder: Path) -> Path:
    (folder / "model").mkdir()
    (folder / "model" / "old").touch()
    return folder / "model"


def test_a_failed_second_rename_keeps_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, replace = model_before(tmp_path), list[str](), os.replace

    def failing(source: Path, target: Path) -> None:
        calls.append(str(source))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(Mistake, match="No space left"), replaced_folder(model) as folder:
        (folder / "new").touch()
    assert [path.name for path in model.iterdir()] == ["old"]


def test_a_kill_between_the_renames_keeps_the_old_model_and_it_is_found(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from cai.runs.files import replaced_folder
replace, calls = os.replace, []
def killed(source, target):
    calls.append(source)
    if len(calls) == 2:
        os._exit(9)
    replace(source, target)
os.replace = killed
with replaced_folder(Path(sys.argv[1])) as folder:
    (folder / "new").touch()
"""
    model = model_before(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    assert subprocess.run([sys.executable, "-c", code, str(model)], env=environment).returncode == 9
    assert not model.exists()
    settings = TrainingSettingsRecord(method="sft")
    settings.write(tmp_path)
    assert _begun(tmp_path, settings) is None
    assert [path.name for path in restored(model).iterdir()] == ["old"]


def test_a_checkpoint_without_its_seal_does_not_count(tmp_path: Path) -> None:
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None
    seal(tmp_path / "checkpoint-2")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    seal(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_metrics_of_steps_done_again_are_not_written_twice(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for _ in range(2):
        metrics = _Metrics(tmp_path, lambda line: None)
        metrics.add({"step": 1, "loss": 0.5})
        metrics.add({"step": 1, "eval_loss": float("nan")})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 1, "eval_loss": None}]


def test_a_line_of_metrics_that_a_full_disk_tore_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    metrics = _Metrics(tmp_path, lambda line: None)
    metrics.add({"step": 2, "loss": 0.25})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


@pytest.mark.parametrize("content", [None, 5, [{"type": "image"}], "half an emoji \ud83d"])
def test_what_is_no_text_is_never_learned(content: Any, tmp_path: Path) -> None:
    good = [turn("user", "a"), turn("assistant", "b")]
    odd = [turn("user", "a")[0], {"role": "assistant", "content": content}]
    file = written(tmp_path / "m.jsonl", {"messages": good[0] + good[1]}, {"messages": odd})
    found = read(file, "messages")
    assert (len(found.rows), found.left_out["wrong"]) == (1, 1)


def test_text_in_parts_is_learned_as_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    file = written(tmp_path / "m.jsonl", {"messages": [*turn("user", "a"), {"role": "assistant", "content": parts}]})
    assert read(file, "messages").rows[0]["completion"] == turn("assistant", "bc")


def test_another_reward_model_makes_another_training(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    options = options_of("ppo", {"rewards": str(tmp_path)})[1]
    seen = []
    for weights in (b"one", b"two"):
        (tmp_path / "model" / "model.safetensors").write_bytes(weights)
        seen.append(_rewards(options))
    assert seen[0] != seen[1] and seen[0].keys() == {str(tmp_path)}


def test_options_that_contradict_each_other_are_one_mistake() -> None:
    with pytest.raises(Mistake, match="'trl' is a single value"):
        overridden({}, ("trl=5", "trl.x=3"))


def test_a_folder_that_cannot_be_made_is_one_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Mistake, match="cannot be made"), Run(tmp_path / "file" / "x").locked():
        pass


def test_a_folder_of_another_training_or_of_anything_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(Mistake, match="holds files that are not a training"):
        _begun(tmp_path, TrainingSettingsRecord(seed=0))
    out = tmp_path / "out"
    assert _begun(out, TrainingSettingsRecord(seed=0)) is None
    assert _begun(out, TrainingSettingsRecord(seed=1)) is None  # nothing was trained yet
    (out / "checkpoints").mkdir()
    with pytest.raises(Mistake, match="holds another training: its seed differ"):
        _begun(out, TrainingSettingsRecord(seed=2))


def test_a_model_of_an_unfinished_training_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(Mistake, match="is not finished"):
        model_folder(str(tmp_path))


# --- The card ---------------------------------------------------------------------------------------------------------


def link(**changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "method": "dpo", "writes": "policy", "settings": "s" * 64, "model": {"name": "base"}, "others": {}, "options": {"beta": 0.2},
        "data": {"name": "run", "digest": "d" * 64, "constitutions": ["c" * 64]}, "seed": 0, "packages": {"trl": "1"},
        "rows": {"read": 9, "used": 7, "held_out": 1, "left_out": {"too_long": 1}},
    }  # fmt: skip
    return made | changed


def test_the_card_leads_from_the_constitution_over_every_model_to_this_one(tmp_path: Path) -> None:
    reward, sft = link(method="reward"), link(method="sft", model={"name": "base", "weights": "w", "made": None})
    made = link(model={"name": "sft", "made": sft}, others={"rm": reward})
    (tmp_path / PROVENANCE).write_text(json.dumps(made))
    found = read_provenance(tmp_path)
    assert found is not None and found.model.made is not None
    assert found.model.made.model == InitialModel("base", identity={"weights": "w"})
    found.write(tmp_path)
    assert read_provenance(tmp_path) == found
    page = model_card(
        found, {"eval_loss": 0.5, "held_out": {"accuracy": {"value": 0.75, "low": 0.6, "high": 0.9, "n": 40}}}
    )
    assert "`dpo` from `sft`" in page and "  - the initial model:\n    - `sft` from `base`" in page
    assert "`reward` from" in page and "constitution `cccccccccccccccc`" in page
    assert "9 read, 7 used for training, 1 held out; 1 left out: too_long." in page
    assert "`held_out accuracy`: 0.75 [0.6, 0.9], n = 40" in page


def test_a_folder_without_provenance_or_with_a_foreign_file_has_none(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) is None
    (tmp_path / PROVENANCE).write_text('{"method": 3}')
    assert read_provenance(tmp_path) is None


# --- Launching --------------------------------------------------------------------------------------------------------


def test_accelerate_files_are_plain_mappings_for_several_processes() -> None:
    files = sorted(PACKAGE.joinpath("train", "accelerate").glob("*.yaml"))
    assert {file.stem for file in files} >= {"cpu", "single_gpu", "ddp", "fsdp2", "zero2", "zero3", "fsdp2_2node"}
    for file in files:
        said = YAML(typ="safe").load(file)
        assert said["compute_environment"] == "LOCAL_MACHINE" and said["num_processes"] >= 1
        assert read_yaml(file).data["distributed_type"]


# --- Model folders ----------------------------------------------------------------------------------------------------


def test_a_model_that_ships_code_is_refused_and_its_code_is_not_run(tmp_path: Path) -> None:
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(Mistake, match="needs Python code of its own"):
        open_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_tokenizer_is_one_mistake(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Mistake, match="has no tokenizer that can be loaded"):
        open_tokenizer(tmp_path)
