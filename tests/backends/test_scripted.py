"""The scripted backend: who it is, and what is not a script."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from cai.backends.scripted import Options, open_scripted
from cai.core.errors import Mistake


def source_of(folder: Path, source: str, name: str = "answer") -> str:
    (folder / "edited.py").write_text(source)
    sys.modules.pop("edited", None)
    importlib.invalidate_caches()
    importlib.import_module("linecache").checkcache()
    found = open_scripted(Options(script=f"edited:{name}")).identity
    assert found["model"] == f"edited:{name}"
    return found.get("source", "")


def test_an_edited_function_is_another_model_and_an_untouched_one_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    one = "def answer(request):\n    return 'one'\n"
    first = source_of(tmp_path, one)
    assert len(first) == 16
    assert source_of(tmp_path, "# a comment before it\n" + one) == first
    assert source_of(tmp_path, one.replace("one", "two")) != first


def test_objects_classes_and_partials_have_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source = """
import functools
class Script:
    def __call__(self, request):
        return "one"
answer = Script()
bound = functools.partial(answer.__call__)
built_in = str
"""
    for name in ("answer", "bound"):
        assert source_of(tmp_path, source, name) != source_of(tmp_path, source.replace("one", "two"), name)
    assert source_of(tmp_path, source, "built_in") == ""


@pytest.mark.parametrize("content", ["{", "[]", "7", "{}", "null"])
def test_a_file_that_is_not_a_script_is_one_clear_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(Mistake, match=r"x\.jsonl: is not a script"):
        open_scripted(Options(script=str(tmp_path / "x.jsonl")))
