"""The options of `cai check`: those of every check, in one flat list, so that `-o identical=0.01` finds its check.

A threshold has the name of its finding. It is the largest share of rows that passes; for findings that can err to
either side, the largest distance from what a set without the fault would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from cai.core.config import Document, Knobs, overridden, parse_options
from cai.core.errors import Mistake
from cai.core.plugin_types import Check
from cai.core.plugins import find_plugin, plugin_names, suggest


def open_checks(outside: Sequence[str] = (), *, only: Sequence[str] | None = None) -> dict[str, Check]:
    """The checks of `cai/checks/`, or `only` some, and those outside (`pkg.module:ATTR`), in order. Raises Mistake."""
    names = plugin_names("checks") if only is None else only
    found = {name: find_plugin("checks", name, Check) for name in (*names, *outside)}
    return dict(sorted(found.items(), key=lambda one: (one[1].order, one[0])))


def check_options(
    overrides: Sequence[str] = (), checks: Mapping[str, Check] | None = None, given: Mapping[str, object] | None = None
) -> dict[str, Knobs]:
    """The options of each check, the defaults with `name=value` overrides, of which the last one holds.

    Raises Mistake for a name that no check has, or that two have.
    """
    checks = open_checks() if checks is None else checks
    owners = _owners(checks)
    settings: dict[str, dict[str, object]] = {name: {} for name in checks}
    for key, value in overridden(dict(given or {}), overrides, "identical=0.01").items():
        if key not in owners:
            raise Mistake(f"-o {key}", f"unknown key {key!r}", suggest(key, sorted(owners)))
        settings[owners[key]][key] = value
    return {name: parse_options(Document("-o", settings[name], None), check.options) for name, check in checks.items()}


def _owners(checks: Mapping[str, Check]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for name, check in checks.items():
        for key in cast(type[Knobs], check.options).model_fields:
            if key in owners:
                raise Mistake(f"check {name}", f"has the option {key!r}, as {owners[key]} has", "rename it")
            owners[key] = name
    return owners
