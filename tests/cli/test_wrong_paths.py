"""Every verb that takes a file, a folder or a model, given one that is not there: one line, and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cai.cli.main import main
from cai.core.errors import CaiError

slow = pytest.mark.slow  # most of these load torch before they look

VERBS = [
    "check nowhere.jsonl",
    "score nowhere pairs.jsonl",
    "score no/where pairs.jsonl",
    "score ./nowhere pairs.jsonl",
    "score tiny nowhere.jsonl",
    "audit pairs nowhere.jsonl",
    "audit reward nowhere --rows pairs.jsonl",
    "audit reward tiny --rows nowhere.jsonl",
    "audit policy nowhere --against tiny --prompts pairs.jsonl",
    "audit judge nowhere.yaml",
    "audit run nowhere",
    "audit refusals nowhere.jsonl",
    "redteam reward nowhere --rows pairs.jsonl",
    "redteam reward tiny --rows nowhere.jsonl",
    "redteam policy nowhere --prompts pairs.jsonl",
    "train sft nowhere.jsonl --model tiny --out out",
    "train sft pairs.jsonl --model nowhere --out out",
    "train dpo pairs.jsonl --model ./nowhere --out out",
    "train nothing pairs.jsonl --model tiny --out out",
    "iterate nowhere.yaml",
    "judge-card nowhere.yaml --gold pairs.jsonl",
    "report nowhere",
    "report nowhere elsewhere",
    "push nowhere you/data",
    "retry nowhere",
    "failures nowhere",
    "requests export nowhere.yaml out.jsonl",
]


@slow
@pytest.mark.parametrize("line", VERBS)
def test_what_is_not_there_is_one_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny import tiny_model

    monkeypatch.chdir(tmp_path)
    pair = {"prompt": "What is the sea?", "chosen": "Water, salt and deep.", "rejected": "I do not know that at all."}
    Path("pairs.jsonl").write_text("".join(json.dumps(pair | {"id": str(n)}) + "\n" for n in range(4)))
    tiny_model(tmp_path / "tiny")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["cai", *line.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2, (said, ended.value.code)
    assert "Traceback" not in said.err and "internal error" not in said.err
    *progress, _ = said.err.strip().split("\n")
    assert all(line.startswith("opening the model") for line in progress), said.err
    assert any(word in said.err for word in ("nowhere", "no/where", "nothing")), said.err
    assert issubclass(CaiError, Exception) and not said.out
