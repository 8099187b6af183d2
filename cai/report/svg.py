"""Charts as plain SVG text: widths in per cent, so that lines stretch with the page and letters do not.

Left out on purpose: colours and fonts, which are the style sheet's, and a plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cai.core.stats import Interval

HEIGHT = 250
_BINS = 24


@dataclass(frozen=True, slots=True)
class Axis:
    """Equal bins of width `step` from `low`, and the positions of their edges in per cent of the width."""

    low: float
    step: float
    bins: int

    def x(self, value: float) -> float:
        """Where `value` stands, in per cent of the width; at the end where it lies beyond."""
        return min(100.0, max(0.0, 100 * (value - self.low) / (self.step * self.bins)))

    def counts(self, values: Iterable[float]) -> list[int]:
        """How many values fall into each bin."""
        counts = [0] * self.bins
        for value in values:
            place = math.floor((value - self.low) / self.step)
            if 0 <= place < self.bins:
                counts[place] += 1
        return counts

    def ticks(self, about: int = 6) -> list[float]:
        """Round values along the axis, `about` so many."""
        step = nice(self.step * self.bins / about)
        first, last = math.ceil(self.low / step), math.floor((self.low + self.step * self.bins) / step)
        return [step * number for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and how many values lie beyond its axis."""

    svg: Markup
    beyond: int


def nice(step: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 ... that is not below `step`."""
    power = 10 ** math.floor(math.log10(max(step, 1)))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step))


def fenced(values: Iterable[float], tail: float = 0.05, reach: float = 1) -> tuple[float, float]:
    """The ends of `values` and 0, without the far-out ones: a single one would press all others together.

    Far out is more than `reach` widths beyond the middle, which is all but `tail` at each side.
    """
    ordered = sorted(values)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (tail, 1 - tail))
    margin = reach * max(high - low, 1.0)
    near = [value for value in ordered if low - margin <= value <= high + margin]
    return min(0.0, near[0]), max(0.0, near[-1])


def axis(values: Iterable[float]) -> Axis:
    """Bins for `values`, an edge at 0, without the far-out ones."""
    low, high = fenced(values)
    step = nice((high - low) / _BINS)
    first = math.floor(low / step)
    return Axis(first * step, step, math.floor(high / step) + 1 - first)


def ruler(values: Iterable[float]) -> Axis:
    """One axis for rows of whiskers, with a margin; without the far-out values."""
    low, high = fenced(values, tail=0.25, reach=3)  # few values: the tails of 5 % would be the far-out ones
    margin = 0.06 * (high - low) or 1.0
    return Axis(low - margin, high - low + 2 * margin, 1)


def bar(share: float) -> Markup:
    """One horizontal bar that fills `share` of its track."""
    body = '<svg class="bar" aria-hidden="true"><rect class="track" width="100%" height="100%" rx="2"/>{}</svg>'
    fill = Markup('<rect class="fill" width="{}" height="100%" rx="2"/>').format(_percent(100 * share))
    return Markup(body).format(fill if share > 0 else "")


def scale(along: Axis) -> Markup:
    """The labels of an axis, for the head of a column of whiskers."""
    labels = Markup("").join(label(along.x(value), 13, _words(value), "tick") for value in along.ticks(3))
    return Markup('<svg class="whisker" aria-hidden="true">{}</svg>').format(labels)


def whisker(found: Interval, along: Axis) -> Markup:
    """A dot with its interval, and a line at 0; cut where it leaves the axis."""
    parts = [_line(along.x(0), 0, 20, "zero"), _dot(found, along, 10)]
    return Markup('<svg class="whisker" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def mirror(before: Sequence[int], after: Sequence[int], medians: tuple[float, float]) -> Chart:
    """Two histograms on one axis and one scale: `before` upwards, `after` downwards."""
    both = [*before, *after]
    along = axis(both)
    ups, downs = along.counts(before), along.counts(after)
    middle, peak = HEIGHT / 2 - 10, max([1, *ups, *downs])
    tall = (middle - 24) / peak
    parts = [_bars(along, ups, middle, -tall, "before"), _bars(along, downs, middle, tall, "after")]
    parts += [_grid(peak, middle, -tall), _grid(peak, middle, tall)]
    parts += [rule(middle, "base"), _ticks(along), _median(along, medians[0], (12, middle), 12)]
    parts += [_median(along, medians[1], (middle, 2 * middle - 12), 2 * middle - 4)]
    said = f"Words per answer: median {medians[0]:g} before, {medians[1]:g} after"
    return Chart(figure(parts, said), len(both) - sum(ups) - sum(downs))


def change_histogram(changes: Sequence[int], mean: Interval) -> Chart:
    """A histogram of changes with 0 marked, and over it the mean with its interval."""
    along = axis(changes)
    counts = along.counts(changes)
    floor, peak = HEIGHT - 24, max([1, *counts])
    tall = (floor - 48) / peak
    parts = [_bars(along, counts, floor, -tall, "after"), _grid(peak, floor, -tall), rule(floor, "base")]
    parts += [_ticks(along), _line(along.x(0), 26, floor, "zero"), _dot(mean, along, 30)]
    if mean.value is not None:
        parts.append(label(along.x(mean.value), 16, f"mean {_words(mean.value, 1)}", "note"))
    return Chart(figure(parts, "Change in words per trace"), len(changes) - sum(counts))


def _dot(found: Interval, along: Axis, y: float) -> Markup:
    parts = []
    if found.low is not None and found.high is not None:
        span = '<line class="span" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        parts.append(Markup(span).format(_percent(along.x(found.low)), _percent(along.x(found.high)), y, y))
    if found.value is not None:
        dot = '<circle class="dot" cx="{}" cy="{}" r="4"/>'
        parts.append(Markup(dot).format(_percent(along.x(found.value)), y))
    return Markup("").join(parts)


def _grid(peak: int, base: float, tall: float) -> Markup:
    """Lines at round counts, each with its number at the right end."""
    step = int(nice(peak / 4))
    parts = []
    for count in range(step, peak + 1, step):
        y = base + count * tall
        parts += [rule(y, "grid"), label(100, y - 3, f"{count:,}", "tick")]
    return Markup("").join(parts)


def _bars(along: Axis, counts: Sequence[int], base: float, tall: float, name: str) -> Markup:
    bar = '<rect class="{}" x="{}" width="{}" y="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    gap = 12 / along.bins
    parts = []
    for place, count in enumerate(counts):
        if count:
            low = along.low + place * along.step
            note = f"{_words(low)} up to {_words(low + along.step)} words: {count:,}"
            left, width = _percent(along.x(low) + gap / 2), _percent(100 / along.bins - gap)
            top = base + min(0.0, count * tall)
            parts.append(Markup(bar).format(name, left, width, top, abs(count * tall), note))
    return Markup("").join(parts)


def _median(along: Axis, value: float, span: tuple[float, float], y: float) -> Markup:
    x = along.x(value)
    anchor, shift = ("start", 6) if x < 60 else ("end", -6)
    return _line(x, *span, "median") + _text(x, y, f"median {_words(value)}", "note", anchor, shift)


def _ticks(along: Axis) -> Markup:
    return Markup("").join(label(along.x(value), HEIGHT - 6, _words(value), "tick") for value in along.ticks())


def label(x: float, y: float, text: str, name: str) -> Markup:
    """Centred on `x`, but never over the edge of the chart."""
    return _text(x, y, text, name, "start" if x < 4 else "end" if x > 96 else "middle", 0)


def _text(x: float, y: float, text: str, name: str, anchor: str, shift: int) -> Markup:
    body = '<text class="{}" x="{}" dx="{}" y="{:.1f}" text-anchor="{}">{}</text>'
    return Markup(body).format(name, _percent(x), shift, y, anchor, text)


def _line(x: float, top: float, bottom: float, name: str) -> Markup:
    body = '<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
    return Markup(body).format(name, _percent(x), _percent(x), top, bottom)


def rule(y: float, name: str) -> Markup:
    """A line across the chart."""
    return Markup('<line class="{}" x1="0" x2="100%" y1="{:.1f}" y2="{:.1f}"/>').format(name, y, y)


def figure(parts: Iterable[Markup], title: str) -> Markup:
    """A chart of its parts; `title` is what it is called where it cannot be seen."""
    body = '<svg class="chart" role="img" aria-label="{}" width="100%" height="{}">{}</svg>'
    return Markup(body).format(title, HEIGHT, Markup("").join(parts))


def _words(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{value:.2f}%"


LINE_WIDTH, LINE_HEIGHT, LINE_EDGE = 300, 90, 4
LINE_POINTS = 400
"""Points of a line; of more, evenly many are drawn."""


def line_chart(points: Sequence[tuple[float, float]]) -> Markup:
    """The line through (step, value), and its ends in words."""
    every = -(-len(points) // LINE_POINTS)
    drawn = [*points[:-1:every], points[-1]]
    steps, values = [step for step, _ in drawn], [value for _, value in drawn]
    low, high, first, last = min(values), max(values), steps[0], steps[-1]

    def place(step: float, value: float) -> str:
        x = LINE_EDGE + (LINE_WIDTH - 2 * LINE_EDGE) * (step - first) / ((last - first) or 1)
        y = LINE_EDGE + (LINE_HEIGHT - 2 * LINE_EDGE) * (1 - (value - low) / ((high - low) or 1))
        return f"{x:.1f},{y:.1f}"

    path = " ".join(place(step, value) for step, value in drawn)
    said = f"{values[0]:.3g} at step {first:g}, {values[-1]:.3g} at step {last:g}; from {low:.3g} to {high:.3g}"
    box = Markup('<svg class="curve" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">')
    line = Markup('<polyline points="{}"/></svg><p class="ends">{}</p>').format(path, said)
    return box.format(LINE_WIDTH, LINE_HEIGHT, said) + line
