"""The report: honest figures, chosen examples, one inert offline file, flat memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.core.safe_text import safe_text
from cai.core.types import Completion, Failure, GateHit, Message, Pair, Prompt, Step, Trace
from cai.pipeline.generate import generate
from cai.report import examples, svg, tally
from cai.report.html import format_number, format_seconds
from cai.report.run_page import run_page
from cai.runs.files import write_json, write_text
from cai.runs.folder import Run, Spool

XSS = (
    "</script><script>hacked=1</script>",
    "<img src=x onerror=hacked=1>",
    "\"><svg/onload=hacked=1>'",
    "<!--<script>",
    "{{ 7*7 }}{% for x in y %}",
    "javascript:hacked=1",
    "&lt;b&gt; &amp;",
    "\u2028\u2029\x00\x1b[31m\u202eevil",
)


class Page(HTMLParser):
    """A page taken apart: its tags with attributes, and the text of each script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.raw.append(data)
        else:
            self.text += data

    @property
    def data(self) -> Any:
        return json.loads(next(text for text in self.raw if text.startswith("{")))


def trace(name: str, draft: str = "one two three four", *answers: str | None, gate: str = "") -> Trace:
    hits = (GateHit(gate, "tag", "a reason"),) if gate else ()
    steps = tuple(
        Step(number, "brief", Completion("Too long."), "fault", Completion(text or "turned away"), text)
        for number, text in enumerate(answers)
    )
    final = next((text for text in reversed(answers) if text is not None), draft)
    return Trace(Prompt(name, (Message("user", f"What is {name}?"),)), 0, Completion(draft), steps, final, hits)


def pair(of: Trace) -> Pair:
    return Pair(of.prompt, of.sample, of.final, of.draft.text, 1.0, ("brief",), "revision:0>1")


def made(path: Path, traces: Sequence[Trace], failures: Sequence[Failure] = (), **changed: object) -> Run:
    rows: tuple[tuple[str, type, Sequence[Any]], ...] = (
        ("traces.jsonl", Trace, traces),
        ("pairs.jsonl", Pair, [pair(one) for one in traces if one.final != one.draft.text]),
        ("failures.jsonl", Failure, failures),
    )
    for file, kind, lines in rows:
        spool = Spool[Any](path / file, kind)
        for position, line in enumerate(lines):
            spool.put(position, [line])
        spool.finish()
    write_json(path / "manifest.json", manifest(len(traces), len(failures)) | changed)
    return Run(path)


def manifest(count: int, failed: int = 0, text: str = "plain") -> dict[str, Any]:
    principle = {"id": "brief", "title": text, "weight": 1.0, "digest": "d", "critique": text, "revise": text}
    return {
        "cai": "0.1.0", "status": "finished", "name": text, "started": "2026-11-23T05:00:00Z", "seconds": 61, "seed": 0,
        "recipe": {"path": text, "digest": "r"}, "templates": {"draft": {"name": text, "digest": "t"}},
        "constitution": {"name": text, "version": "1.0", "digest": "c" * 64, "principles": [principle]},
        "prompts": {"path": text, "digest": "p"}, "models": {"writer": {"engine": text, "model": text}},
        "packages": {"python": "3.11.7"}, "gates": {"preamble": {"repair": 1}},
        "counts": {
            "read": {"in": count + failed, "out": count, "failed": failed},
            "pair": {"in": count, "out": count, "failed": 0},
        },
        "calls": {
            "writer": {"asked": 5, "found": 3, "prompt_tokens": 10, "completion_tokens": 20}
        },
        "lengths": {
            "unit": "words", "n": count, "draft_median": 107.0, "final_median": 45.0, "change_mean": -60.2,
            "low": -75.1, "high": -46.0, "shorter": count, "longer": 0,
        },
    }  # fmt: skip


def visible(html: str) -> str:
    return re.sub(r"\s+", " ", Page(html).text)


def shown(html: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Page(html).data["examples"]
    return found


async def test_the_page_of_a_real_run_says_what_its_manifest_says(tmp_path: Path, recipe_of: Any) -> None:
    await generate(recipe_of("scripts:troubled", max_failure_share=1.0), run := Run(tmp_path / "runs" / "r"))
    said = run.manifest.as_json()
    text = visible((run.path / "report.html").read_text("utf-8"))
    assert f"{said['counts']['read']['out']} → {said['counts']['revise']['out']}" in text
    for kind, count in said["failures"].items():
        assert kind in text, f"{count} failures of kind {kind} are not named"
    assert said["constitution"]["digest"][:12] in text
    assert "no" not in re.findall(r"Adds up(.*?)Principles", text)[0].split()


def test_the_headline_has_median_mean_and_interval(tmp_path: Path) -> None:
    text = visible(run_page(made(tmp_path, [trace("a", "one two three", "one")])))
    assert "107 → 45" in text
    assert "−60.2" in text
    assert "95 % interval −75.1 to −46.0" in text
    assert "1 min 1 s" in text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = made(tmp_path, [trace(f"p{n}", "one two three", "one two") for n in range(30)])
    assert run_page(run, 10) == run_page(run, 10)


def test_nothing_is_fetched_and_no_markup_carries_code_or_style(tmp_path: Path) -> None:
    for tag, attributes in Page(run_page(made(tmp_path, [trace("a", "one two", "one", gate="preamble")]))).tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "action")], tag
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert (attributes.get("href") or "#").startswith("#")


def test_the_policy_allows_this_style_and_script_and_nothing_else(tmp_path: Path) -> None:
    taken = Page(run_page(made(tmp_path, [trace("a")])))
    policy = next(of["content"] or "" for tag, of in taken.tags if of.get("http-equiv") == "Content-Security-Policy")
    style, _, script = taken.raw
    for kind, text in (("style-src", style), ("script-src", script)):
        code = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{code}';" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@pytest.mark.parametrize("evil", XSS)
def test_foreign_text_stays_text_in_every_field(tmp_path: Path, evil: str) -> None:
    harmless = run_page(everywhere(tmp_path / "a", "plain"))
    attacked = run_page(everywhere(tmp_path / "b", evil))
    assert skeleton(attacked) == skeleton(harmless)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", attacked)
    assert shown(attacked)[0]["draft"]["text"] == safe_text(evil) + " draft"


def skeleton(html: str) -> list[tuple[str, list[str]]]:
    """Tags and the names of their attributes; charts left out, which differ with the number of words."""
    return [(tag, list(of)) for tag, of in Page(re.sub("<svg.*?</svg>", "", html, flags=re.DOTALL)).tags]


def everywhere(path: Path, text: str) -> Run:
    """A run whose every field that comes from outside holds `text`."""
    hit = GateHit("preamble", "tag", text)
    said = Completion(text, thinking=text)
    prompt = Prompt(text, (Message("system", text), Message("user", text)), (text,))
    step = Step(0, "brief", said, "fault", said, text + " answer", (hit,))
    one = Trace(prompt, 0, Completion(text + " draft"), (step,), text + " answer", (hit,))
    failures = [Failure(text, "pair", text, text), Failure("other", "draft", text, text)]
    return made(path, [one], failures, **manifest(1, 1, text))


@given(st.text(alphabet="<>/!-&'\"scriptSCRIPT \u2028\ud800\\u", max_size=40))
def test_embedded_json_cannot_end_its_element_and_loses_no_text(text: str) -> None:
    embedded = str(examples.embedded({"text": text}))
    assert not set("<>&") & set(embedded)
    assert json.loads(embedded) == {"text": safe_text(text)}


@pytest.mark.slow
def test_in_a_browser_the_script_runs_and_foreign_markup_does_not(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("there is no chromium on this machine")
    file = tmp_path / "report.html"
    write_text(file, run_page(everywhere(tmp_path / "run", "".join(XSS))))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [chromium, *flags, "--dump-dom", file.as_uri()]
    dom = Page(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert "1 of 1" in dom.text, "the script did not fill the list"
    assert [of for tag, of in dom.tags if tag == "img" or any(name.startswith("on") for name in of)] == []
    assert len([tag for tag, _ in dom.tags if tag == "script"]) == 2


def test_a_sample_is_as_large_as_asked_and_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    traces = [trace(f"p{n}", "one two three", "one") for n in range(120)]
    forward = shown(run_page(made(tmp_path / "a", traces), 20))
    backward = shown(run_page(made(tmp_path / "b", traces[::-1]), 20))
    assert len(forward) == 20
    assert {one["id"] for one in forward} == {one["id"] for one in backward}
    assert [one["id"] for one in forward] == [one.prompt.id for one in traces if one.prompt.id in ids(forward)]


def ids(found: Sequence[dict[str, Any]]) -> set[str]:
    return {one["id"] for one in found}


def test_a_rare_gate_and_a_lost_pair_are_always_among_the_examples(tmp_path: Path) -> None:
    traces = [trace(f"p{n}", "one two three", "one", gate="meta" if n == 77 else "") for n in range(300)]
    lost = Failure("p123", "pair", "gate:near_identical", "too alike")
    html = run_page(made(tmp_path, traces, [lost], gates={"meta": {"tag": 1}, "near_identical": {"drop": 1}}), 10)
    assert {"p77", "p123"} <= ids(shown(html))
    links = {of["href"] for tag, of in Page(html).tags if tag == "a" and (of["href"] or "").startswith("#t-")}
    assert {f"#t-{tally.key(name, 0)}" for name in ("p77", "p123")} <= links


def test_many_marked_traces_leave_half_the_room_to_the_others(tmp_path: Path) -> None:
    traces = [trace(f"p{n}", gate="meta" if n % 2 else "") for n in range(400)]
    marked = sum("gate:meta" in one["marks"] for one in shown(run_page(made(tmp_path, traces), 40)))
    assert 20 <= marked <= 38


def test_huge_texts_are_cut_and_what_is_cut_is_counted(tmp_path: Path) -> None:
    (one,) = shown(run_page(made(tmp_path, [trace("a", "word " * 200_000, "short")])))
    assert one["draft"]["hidden"] == 1_000_000 - examples.SHOWN
    assert one["draft"]["words"] == 200_000
    (step,) = one["steps"]
    assert step["diff"]["words"] == [200_000, 1]
    assert step["diff"]["hidden"] == [pytest.approx(1_000_000 - examples.SHOWN, abs=1), 0]  # a blank between the texts


def test_a_page_stays_below_5_mb_whatever_the_models_wrote(tmp_path: Path) -> None:
    texts = ["<&" * 4_000, "汉字 " * 3_000, "word " * 2_000, "'\"" * 4_000]
    html = run_page(made(tmp_path, [trace(f"p{n}", texts[n % 4], *texts) for n in range(200)]))
    assert len(html.encode()) < 5_000_000
    assert 0 < len(shown(html)) < 200
    assert f"{len(shown(html))} of 200 traces" in visible(html)


def test_memory_holds_the_examples_and_not_the_rows(tmp_path: Path) -> None:
    run = made(tmp_path, [trace(f"p{n}", f"word{n} " * 5_000, "short") for n in range(300)])
    run_page(run, 2)  # what is imported and cached on first use is not the rows' memory
    tracemalloc.start()
    run_page(run, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (run.path / "traces.jsonl").stat().st_size > 10_000_000
    assert peak < 6_000_000


def test_each_revision_is_a_diff_against_the_answer_before_it(tmp_path: Path) -> None:
    run = made(tmp_path, [trace("a", "one two three", "one two", None, "one")])
    (one,) = shown(run_page(run))
    assert [step["diff"] and step["diff"]["parts"] for step in one["steps"]] == [
        [[0, "one two"], [-1, " three"]],
        None,
        [[0, "one"], [-1, " two"]],
    ]
    assert one["steps"][1]["refused"]["text"] == "turned away"
    assert one["overall"]["words"] == [3, 1]


def test_principles_count_what_they_drew_and_kept(tmp_path: Path) -> None:
    run = made(tmp_path, [trace("a", "one two three", "one two", None), trace("b", "one two", "one")])
    found = tally.tally_run(run, 10).principles["brief"]
    assert (found.steps, found.accepted, list(found.changes)) == (3, 2, [-1, -1])
    assert found.verdicts == {"fault": 3}


def test_a_stage_that_does_not_add_up_is_said(tmp_path: Path) -> None:
    counts = {"read": {"in": 5, "out": 3, "failed": 1}}
    assert 'class="bad">no<' in run_page(made(tmp_path, [trace("a")], counts=counts))


def test_an_interrupted_run_without_a_trace_has_an_honest_page(tmp_path: Path) -> None:
    facts = manifest(0) | {"status": "interrupted", "counts": {}, "gates": {}, "calls": {}}
    del facts["lengths"]
    run = made(tmp_path, [])
    write_json(tmp_path / "manifest.json", facts)
    html = run_page(run)
    assert "interrupted" in visible(html)
    assert "NaN" not in html
    assert "lengths" not in {of.get("id") for _, of in Page(html).tags}


def test_one_trace_has_a_mean_and_no_interval(tmp_path: Path) -> None:
    facts = manifest(1)["lengths"] | {"change_mean": -1.0, "low": None, "high": None}
    text = visible(run_page(made(tmp_path, [trace("a", "one two", "one")], lengths=facts)))
    assert "Mean change, paired: −1.0 words" in text


@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=60))
def test_a_histogram_draws_or_counts_every_value_and_keeps_zero_on_an_edge(values: list[int]) -> None:
    along = svg.axis(values)
    beyond = sum(not along.low <= value < along.low + along.step * along.bins for value in values)
    assert sum(along.counts(values)) + beyond == len(values)
    assert along.low / along.step == int(along.low / along.step)
    assert along.bins <= 60


def test_one_far_out_value_does_not_press_the_others_together() -> None:
    along = svg.axis([*range(100), 1_000_000])
    assert along.low + along.step * along.bins < 300


@pytest.mark.parametrize(
    ("number", "text"), [(None, "–"), (1234.5, "1,234"), (-3, "−3"), (0, "0")], ids=["none", "large", "minus", "zero"]
)
def test_numbers_read_well(number: float | None, text: str) -> None:
    assert format_number(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0.2 s"), (212.4, "3 min 32 s"), (3600, "1 h")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    "sign", ["\x1b", "\x7f", "\b", "\f", "\r", "\u202e", "\u115f", "\u200b", "\ufeff", "\x85", "\ud800"]
)
@pytest.mark.parametrize("around", ["plain", "Grüße"])
def test_no_text_in_the_pages_data_hides_or_steers(sign: str, around: str) -> None:
    for value in ({"a": f"{around}{sign}x"}, {f"{around}{sign}": 1}, {"a": [{"b": [sign]}]}, {"a": f"{sign}\n"}):
        assert sign not in "".join(texts(json.loads(str(examples.embedded(value)))))


def texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts(item)
