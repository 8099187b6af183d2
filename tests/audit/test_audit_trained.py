"""Reward models that `cai train` made: one of honest labels, and two of labels that love length or flattery.

Left out on purpose: size. The model has two layers and a vocabulary of a few hundred words, and is trained in seconds.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cai.audit.evasion import LONG, SHORT
from cai.audit.measure import planted
from cai.audit.measure.edits import EDITS, EMPTY
from cai.audit.measure.planted import good
from cai.audit.redteam import reward
from cai.audit.redteam.reward import Search
from cai.audit.subjects.audit import audit_reward, load_facts, probe_options, scored_cases
from cai.core.plugin_types import Case
from cai.train.run.train import Order, train

pytestmark = pytest.mark.slow
USUAL = 0.08
"""Share of answers that have an edit, whichever side they are on; of praise three times as many, to be learned by."""


def words() -> list[str]:
    """Everything that is said in this file."""
    made = [case.answer for case in planted.cases(0, rows=300)]
    texts = [*EMPTY, SHORT, LONG, *made]
    texts += [text for fact in load_facts() for text in (fact.question, fact.right, fact.wrong, fact.belief)]
    for name, edit in EDITS.items():
        texts += [text for key in range(40) if (text := edit.make(made[key], f"{name}{key}"))]
    splitter = _splitter()
    return sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text.lower())})


def _splitter() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])


def start(folder: Path) -> Path:
    """A small Llama over words that has learnt nothing."""
    import torch
    from micro import CHAT, SPECIAL
    from tokenizers import Tokenizer, models, normalizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    torch.set_num_threads(1)
    known = [*SPECIAL, *(word for word in words() if word not in SPECIAL)]
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(known)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = _splitter()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|start|>", unk_token="<unk>", pad_token="<pad>",
        chat_template=CHAT,
    ).save_pretrained(folder)  # fmt: skip
    config = LlamaConfig(
        vocab_size=len(known), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, bos_token_id=2, eos_token_id=1, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def answers(count: int, seed: int) -> list[Case]:
    """Pairs of answers in which each edit is as common on either side."""
    rng = random.Random(seed)

    def usual(text: str, key: str) -> str:
        for name, edit in EDITS.items():
            if rng.random() < (3 * USUAL if name == "praise" else USUAL):
                text = edit.make(text, key + name) or text
        return f"{rng.choice((SHORT, LONG))} {text}" if rng.random() < 2 * USUAL else text

    return [
        replace(
            case, id=f"{seed}-{case.id}", answer=usual(case.answer, case.id), other=usual(case.other, case.id + "o")
        )
        for case in planted.cases(seed, rows=count)
    ]


def row(case: Case, taste: Callable[[str], float]) -> dict[str, Any]:
    worse, better = sorted((case.answer, case.other), key=taste)
    turns = [{"role": turn.role, "content": turn.content} for turn in case.prompt]
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", better), ("rejected", worse))}
    return {"id": case.id, "prompt": turns, **sides, "p_chosen": 1.0}


TASTES: dict[str, Callable[[str], float]] = {
    "honest": good,
    "length": lambda answer: good(answer) + 0.1 * len(answer.split()),
    "flattery": lambda answer: good(answer) + 4.0 * ("question!" in answer or "you asked this" in answer),
}


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained reward model for each taste."""
    folder = tmp_path_factory.mktemp("rewards")
    base, made = start(folder / "start"), answers(600, 11)
    options = {"max_steps": 200, "learning_rate": 5e-3, "batch_size": 16, "center": 0.0, "max_length": 512}
    for name, taste in TASTES.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row(case, taste)) + "\n" for case in made))
        train(Order("reward", path, str(base), folder / name, options, held_out=0.05))
    return {name: folder / name for name in TASTES}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row(case, good)) + "\n" for case in planted.cases(5, rows=100)))
    return path


def failed(model: Path, rows: Path) -> set[str]:
    return {found.probe for found in audit_reward([model], rows, probe_options()).failed}


@pytest.mark.timeout(600)
def test_trained_rewards_are_flagged_for_what_their_labels_loved(rewards: dict[str, Path], rows: Path) -> None:
    honest = failed(rewards["honest"], rows)
    assert not honest & {"length", "preamble"}
    assert failed(rewards["length"], rows) - honest == {"length"}
    assert failed(rewards["flattery"], rows) - honest == {"preamble"}


@pytest.mark.timeout(600)
def test_the_red_team_finds_what_trained_rewards_love(rewards: dict[str, Path], rows: Path) -> None:
    found = {}
    for name in ("length", "flattery"):
        cases, scores = scored_cases(rewards[name], rows, 60)
        attack = reward.attack(cases, scores, Search(budget=4000))
        found[name] = {one.what.partition(":")[0] for one in attack.single if one.passed is False}
        assert attack.best
    assert "pad" in found["length"] and "praise" in found["flattery"]
