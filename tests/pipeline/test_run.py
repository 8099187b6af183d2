"""A recipe that goes on through trainings: what is checked before anything is paid, and the whole of it on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from cai.backends.local import model_folders
from cai.core.errors import Mistake
from cai.pipeline.run import _unchanged, check_trainings, run
from cai.runs import recipe
from cai.runs.folder import Run


@pytest.fixture
def unfetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model is taken to be here, so that these tests need not fetch it."""
    real = model_folders.model_folder

    def model_folder(name: str) -> tuple[Path, dict[str, str]]:
        return (Path(name), {}) if name == "smollm2-135m-instruct" else real(name)

    monkeypatch.setattr(model_folders, "model_folder", model_folder)


@pytest.mark.usefixtures("unfetched")
@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([{"method": "dop"}], "did you mean 'dpo'"),
        ([{"method": "dpo"}, {"method": "dpo"}], "the name of two trainings"),
        ([{"method": "dpo", "betta": 0.2}], "beta"),
        ([{"method": "reward"}, {"method": "dpo", "from": "reward"}], "start from a policy before it"),
        ([{"method": "dpo", "from": "dpo"}], "start from a policy before it"),
        ([{"method": "ppo"}], "rewards"),
        ([{"method": "dpo", "from": "./sfft"}], "sfft"),
        ([{"method": "ppo", "rewards": "./rewrd"}], "rewrd"),
        ([{"method": "ppo", "rewards": [{"model": "./rewrd"}]}], "rewrd"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_anything_is_asked(
    train: list[dict[str, Any]], words: str, recipe_of: Any
) -> None:
    with pytest.raises(Mistake) as caught:
        check_trainings(recipe_of(writer={"backend": "transformers", "model": "smollm2-135m-instruct"}, train=train))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unfetched")
def test_a_writer_at_an_endpoint_cannot_be_trained_but_another_model_can(recipe_of: Any) -> None:
    writer = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(Mistake, match="keeps to itself"):
        check_trainings(recipe_of(writer=writer, train=[{"method": "dpo"}]))
    check_trainings(recipe_of(writer=writer, train=[{"method": "dpo", "from": "smollm2-135m-instruct"}]))


@pytest.mark.usefixtures("unfetched")
def test_the_recipe_on_the_page_holds(tmp_path: Path) -> None:
    page = Path(__file__).parents[2].joinpath("docs", "recipes.md").read_text("utf-8")
    text = next(block.split("```")[0] for block in page.split("```yaml\n")[1:] if "\ntrain:" in block)
    (tmp_path / "r.yaml").write_text(text)
    chosen = recipe.load_recipe(tmp_path / "r.yaml")
    check_trainings(chosen)
    assert [step.folder for step in chosen.train] == ["sft", "reward", "dpo", "against-three"]


@pytest.mark.slow
async def test_from_prompts_to_a_policy_and_again_without_any_work(tmp_path: Path, prompts_file: Path) -> None:
    config = tiny_model(tmp_path / "model") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 16384}))
    small = {"max_steps": 1, "batch_size": 2, "max_length": 2048}
    chosen = recipe.Recipe.model_validate(
        {
            "constitution": "concise",
            "prompts": {"path": str(prompts_file), "limit": 12},
            "writer": {"backend": "transformers", "model": str(tmp_path / "model")},
            "templates": "small",
            "draft": {"max_tokens": 12},
            "critique": {"rounds": 1, "examples": 0, "max_tokens": 4},
            "revise": {"max_tokens": 12},
            "gates": dict.fromkeys(
                ("no_revision", "unchanged", "repetition", "meta", "roles", "language", "near_identical")
            ),
            "judge": "logprob",
            "export": {"formats": ["trl"], "test_share": 0.3},
            "train": [
                {"method": "sft", **small},
                {"method": "reward", "soft": False, **small},
                {"method": "dpo", "from": "sft", "soft": False, **small},
            ],
        }
    )
    where = Run(tmp_path / "runs" / "r")
    said = (await run(chosen, where)).as_json()
    assert [step["name"] for step in said["train"]] == ["sft", "reward", "dpo"]
    settings = json.loads((where.path / "train" / "dpo" / "settings.json").read_text())
    assert settings["model"]["name"].endswith("train/sft")
    facts = json.loads((where.path / "policy.json").read_text())
    assert facts["n"] == len(facts["rows"]) > 0
    trained_on = {pair.prompt.id for pair in where.pairs()} - {row["id"] for row in facts["rows"]}
    assert said["train"][2]["rows"]["used"] <= len(trained_on), "no prompt that is compared was learned from"
    page = (where.path / "report.html").read_text()
    assert all(f'id="{part}"' in page for part in ("judge", "training", "policy", "audit"))
    weights = (where.path / "train" / "dpo" / "model" / "model.safetensors").stat().st_mtime_ns
    again = (await run(chosen, where)).as_json()
    assert (where.path / "train" / "dpo" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    assert all(calls["asked"] == 0 for calls in again["starts"][-1]["calls"].values())
    assert again["policy"] == said["policy"]


def test_trainings_of_rows_that_have_changed_are_not_taken_for_those_of_the_new(tmp_path: Path) -> None:
    where, step = Run(tmp_path / "run"), recipe.TrainingSettings(method="dpo")
    folder = where.path / "train" / "dpo"
    folder.mkdir(parents=True)
    (where.path / "traces.jsonl").write_text("one\n")
    (folder / "settings.json").write_text(json.dumps({"data": {"digest": where.digest}}))
    _unchanged(where, step)
    (where.path / "traces.jsonl").write_text("two\n")
    with pytest.raises(Mistake, match="learned from other rows than the run has now"):
        _unchanged(where, step)
