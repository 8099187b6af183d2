"""What one side of the cases has more of than the other, row by row.

Left out on purpose: what is counted. A probe brings its own sign.
"""

from __future__ import annotations

from collections.abc import Callable

from cai.audit.measure.finding import Measured, group, sides
from cai.core.plugin_types import Case, Exhibit

Sign = Callable[[Case, str], float]
"""How much of something one answer of a case has; of a yes or no, 1 or 0."""


def minus(exhibit: Exhibit, sign: Sign, names: tuple[str, str]) -> tuple[list[Measured], str]:
    """The sign of one answer minus that of the other, row by row; and both means in words."""
    cases = list(sides(exhibit.cases)) if names[0] == "chosen" else list(exhibit.cases)
    found = [(sign(case, case.answer), sign(case, case.other)) for case in cases]
    rows = [Measured(case.id, group(case.prompt), one - two) for case, (one, two) in zip(cases, found, strict=True)]
    n = max(1, len(found))
    means = sum(one for one, _ in found) / n, sum(two for _, two in found) / n
    return rows, f"{names[0]} {100 * means[0]:.1f} %, {names[1]} {100 * means[1]:.1f} %" if found else ""
