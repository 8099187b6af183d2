"""A quantity over the steps of a training as one small line, with its first, least, greatest and last value.

Left out on purpose: smoothing. A line that jumps did jump.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, EDGE = 300, 90, 4
MOST = 400
"""Points of a line; of more, evenly many are drawn."""


def curve(points: Sequence[tuple[float, float]]) -> Markup:
    """The line through (step, value), and its ends in words."""
    every = -(-len(points) // MOST)
    drawn = [*points[:-1:every], points[-1]]
    steps, values = [step for step, _ in drawn], [value for _, value in drawn]
    low, high, first, last = min(values), max(values), steps[0], steps[-1]

    def place(step: float, value: float) -> str:
        x = EDGE + (WIDTH - 2 * EDGE) * (step - first) / ((last - first) or 1)
        y = EDGE + (HEIGHT - 2 * EDGE) * (1 - (value - low) / ((high - low) or 1))
        return f"{x:.1f},{y:.1f}"

    path = " ".join(place(step, value) for step, value in drawn)
    said = f"{values[0]:.3g} at step {first:g}, {values[-1]:.3g} at step {last:g}; from {low:.3g} to {high:.3g}"
    box = Markup('<svg class="curve" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">')
    line = Markup('<polyline points="{}"/></svg><p class="ends">{}</p>').format(path, said)
    return box.format(WIDTH, HEIGHT, said) + line
