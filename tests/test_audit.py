"""Probes: every one catches what it was planted for, is silent on the clean case, and says how sure it is."""

from __future__ import annotations

import pytest

from cai import plugins
from cai.records import Finding, Probe

NAMES = plugins.names("audit")
LOOKS = [(name, subject) for name in NAMES for subject in plugins.find("audit", name, Probe).looks]


def findings(name: str, subject: str, kind: str, seed: int = 1) -> list[Finding]:
    probe = plugins.find("audit", name, Probe)
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
