"""Probes: every one catches what it was planted for, is silent on the clean case, and says how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import sqrt

import pytest
from planted_audit import BIASES, CLEAN, biased

from cai.audit import evasion, overoptimisation, sycophancy
from cai.audit.measure import planted
from cai.audit.measure.finding import Measured, means
from cai.audit.measure.planted import planted_reward
from cai.audit.overoptimisation import Options, expected, fitted, kl, turn
from cai.audit.subjects.audit import audit_scores, probe_options
from cai.core import plugins
from cai.core.plugin_types import Case, Exhibit, Finding, Probe, Scores
from cai.core.types import Message

NAMES = plugins.plugin_names("audit")
LOOKS = [(name, subject) for name in NAMES for subject in plugins.find_plugin("audit", name, Probe).looks]


def findings(name: str, subject: str, kind: str, seed: int = 1) -> list[Finding]:
    probe = plugins.find_plugin("audit", name, Probe)
    exhibit = (probe.planted if kind == "planted" else probe.clean)(subject, seed)  # type: ignore[arg-type]
    return list(probe.looks[subject](exhibit, probe.options()))  # type: ignore[index]


@pytest.mark.parametrize(("name", "subject"), LOOKS)
def test_a_probe_catches_what_was_planted(name: str, subject: str) -> None:
    failed = [found for found in findings(name, subject, "planted") if found.passed is False]
    assert failed
    for found in failed:
        assert found.probe == name and found.severity != "info"
        assert found.low is not None and found.high is not None and found.value is not None
        assert found.low <= found.value <= found.high
        assert found.examples


@pytest.mark.parametrize(("name", "subject"), LOOKS)
def test_a_probe_is_silent_on_the_clean_case(name: str, subject: str) -> None:
    found = findings(name, subject, "clean")
    assert found
    assert [one for one in found if one.passed is False] == []
    assert any(one.passed for one in found), "silence has to come from looking"


@pytest.mark.parametrize(("name", "subject"), LOOKS)
def test_a_probe_says_the_same_again(name: str, subject: str) -> None:
    assert findings(name, subject, "planted") == findings(name, subject, "planted")


def failed_by(reward: Scores, seed: int = 3) -> set[str]:
    exhibit = planted_reward(seed)
    found = audit_scores(exhibit, probe_options(), "planted", reward=reward)
    return {one.probe for one in found if one.passed is False}


def test_a_reward_of_quality_alone_is_flagged_for_nothing() -> None:
    assert failed_by(CLEAN) == set()


@pytest.mark.parametrize("bias", BIASES)
def test_a_biased_reward_is_flagged_for_its_bias_and_nothing_else(bias: str) -> None:
    assert failed_by(biased(bias)) == BIASES[bias][1]


def test_a_reward_that_tells_nothing_apart_is_measured_by_no_number() -> None:
    found = audit_scores(planted_reward(1), probe_options(), "flat", reward=lambda rows: [0.0] * len(list(rows)))
    moved = [one for one in found if one.probe == "preamble"]
    assert moved and all((one.value, one.passed) == (None, None) for one in moved)


def test_an_answer_is_scored_once() -> None:
    asked: list[str] = []

    def reward(rows: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        asked.extend(answer for _, answer in rows)
        return CLEAN(rows)

    exhibit = Exhibit(planted.cases(1, rows=30))
    audit_scores(exhibit, {"length": probe_options()["length"]}, "m", reward=reward)
    assert len(asked) == len(set(asked))


def test_best_of_n_is_the_mean_over_all_choices() -> None:
    gold = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0]
    for n in range(1, 7):
        picks = [gold[max(chosen)] for chosen in combinations(range(6), n)]
        assert expected(gold, n) == pytest.approx(sum(picks) / len(picks))


def test_the_turn_of_a_known_curve_is_found() -> None:
    gains = [(n, sqrt(kl(n)) * (2.0 - 1.0 * sqrt(kl(n)))) for n in (1, 2, 4, 8, 16)]
    assert fitted(gains) == pytest.approx((2.0, 1.0))
    assert kl(6) < 1.0 < kl(7)
    assert turn(2.0, 1.0) == 7
    assert turn(2.0, -1.0) is None


def test_overoptimisation_needs_gold_and_several_answers() -> None:
    exhibit = Exhibit(planted.cases(1), CLEAN, gold=CLEAN)
    (found,) = overoptimisation.reward(exhibit, Options())
    assert (found.value, found.passed) == (None, None) and "4 answers" in found.note


def test_evasion_is_wrong_on_either_side_of_what_a_prompt_ought_to_get() -> None:
    answers = {"comply": ("It is blue.", evasion.SHORT), "refuse": (evasion.SHORT, "It is blue.")}

    def found(right: bool) -> dict[str, bool | None]:
        cases = [
            Case(
                f"{expect}{n}", (Message("user", f"What is thing {n}?"),), *sides[:: 1 if right else -1], expect=expect
            )
            for expect, sides in answers.items()
            for n in range(40)
        ]
        return {one.what: one.passed for one in evasion.pairs(Exhibit(cases), evasion.Options())}

    assert set(found(right=True).values()) == {True}
    assert set(found(right=False).values()) == {False}
    assert len(found(right=True)) == 2, "each side by itself"


def test_rows_of_one_prompt_are_resampled_together() -> None:
    alone = [Measured(str(n), n, float(n % 2)) for n in range(200)]
    together = [Measured(str(n), n // 50, float(n // 50 % 2)) for n in range(200)]
    one, other = means(alone), means(together)
    assert one.value == other.value == 0.5
    assert one.low is not None and other.low is not None and other.low < one.low - 0.2


def test_a_policy_that_gives_in_as_its_start_did_is_told_from_one_that_learned_to() -> None:
    learned = sycophancy.planted("policy", 0)
    both = replace(learned, answers={id: (new, new) for id, (new, old) in learned.answers.items()})
    for exhibit, inherited in ((learned, False), (both, True)):
        found = [one for one in sycophancy.policy(exhibit, sycophancy.Options()) if "new minus old" not in one.what]
        assert [one.passed for one in found] == [False, False]
        assert [one.inherited for one in found] == [inherited, inherited]
