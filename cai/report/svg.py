"""Charts as plain SVG text: widths in per cent, so that lines stretch with the page and letters do not.

Left out on purpose: colours and fonts, which are the style sheet's, and a plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cai.stats import Interval

HEIGHT = 230
_BINS = 28
_SHOWN = (
    0.98  # share of the values that the axis reaches; the rest is counted in words, or one outlier hides the others
)


@dataclass(frozen=True, slots=True)
class Axis:
    """Equal bins of width `step` from `low`, and the positions of their edges in per cent of the width."""

    low: float
    step: float
    bins: int

    def x(self, value: float) -> float:
        return 100 * (value - self.low) / (self.step * self.bins)

    def counts(self, values: Iterable[float]) -> list[int]:
        """How many values fall into each bin."""
        counts = [0] * self.bins
        for value in values:
            place = math.floor((value - self.low) / self.step)
            if 0 <= place < self.bins:
                counts[place] += 1
        return counts

    def ticks(self) -> list[float]:
        """Round values along the axis, its ends left out where a label would be cut."""
        step = nice(self.step * self.bins / 6)
        first = math.ceil(self.low / step)
        every = (step * number for number in range(first, first + 16))
        return [value for value in every if 2 <= self.x(value) <= 98]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and how many values lie beyond its axis."""

    svg: Markup
    beyond: int


def nice(step: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 ... that is not below `step`."""
    power = 10 ** math.floor(math.log10(max(step, 1)))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step))


def axis(values: Sequence[float], *, zero: bool) -> Axis:
    """Bins for nearly all of `values`, an edge at 0; `zero` starts there, as lengths do."""
    ordered, tail = sorted(values), (1 - _SHOWN) / (1 if zero else 2)
    low = 0.0 if zero else min(0.0, ordered[int(tail * (len(ordered) - 1))])
    high = max(0.0, ordered[math.ceil((1 - tail) * (len(ordered) - 1))])
    step = nice((high - low) / _BINS)
    first = math.floor(low / step)
    return Axis(first * step, step, math.floor(high / step) + 1 - first)


def bar(share: float) -> Markup:
    """One horizontal bar that fills `share` of its track."""
    text = '<svg class="bar" aria-hidden="true"><rect class="track" width="100%" height="100%" rx="2"/>{}</svg>'
    fill = Markup('<rect class="fill" width="{}" height="100%" rx="2"/>').format(_percent(100 * share))
    return Markup(text).format(fill if share > 0 else "")


def whisker(found: Interval, low: float, high: float) -> Markup:
    """A dot with its interval on an axis from `low` to `high` that other rows share, with a line at 0."""
    place = Axis(low, (high - low) or 1.0, 1)
    parts = [_line(place.x(0), 0, 20, "zero")]
    if found.low is not None and found.high is not None:
        span = '<line class="span" x1="{}" x2="{}" y1="10" y2="10"/>'
        parts.append(Markup(span).format(_percent(place.x(found.low)), _percent(place.x(found.high))))
    if found.value is not None:
        parts.append(Markup('<circle class="dot" cx="{}" cy="10" r="4"/>').format(_percent(place.x(found.value))))
    return Markup('<svg class="whisker" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def mirror(before: Sequence[int], after: Sequence[int], medians: tuple[float, float]) -> Chart:
    """Two histograms on one axis and one scale: `before` upwards, `after` downwards."""
    both = [*before, *after]
    shared = axis(both, zero=True)
    ups, downs = shared.counts(before), shared.counts(after)
    middle, peak = HEIGHT / 2 - 10, max([1, *ups, *downs])
    parts = [_bars(shared, ups, middle, -(middle - 22) / peak, "before")]
    parts += [_bars(shared, downs, middle, (middle - 22) / peak, "after")]
    parts += [Markup('<line class="base" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(middle)]
    parts += [_median(shared, medians[0], (10, middle), 10, "before"), _ticks(shared)]
    parts += [_median(shared, medians[1], (middle, 2 * middle - 8), 2 * middle - 4, "after")]
    label = f"Words per answer: median {medians[0]:g} before, {medians[1]:g} after"
    return Chart(_figure(parts, label), len(both) - sum(ups) - sum(downs))


def spread(changes: Sequence[int], mean: Interval) -> Chart:
    """A histogram of changes with 0 marked, and over it the mean with its interval."""
    own = axis(changes, zero=False)
    counts = own.counts(changes)
    floor = HEIGHT - 24
    scale = (floor - 44) / max([1, *counts])
    parts = [_bars(own, counts, floor, -scale, "after"), _line(own.x(0), 26, floor, "zero")]
    parts += [Markup('<line class="base" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(floor), _ticks(own)]
    if mean.value is not None:
        parts.append(_mean(own, mean))
    return Chart(_figure(parts, "Change in words per trace"), len(changes) - sum(counts))


def _mean(own: Axis, mean: Interval) -> Markup:
    parts = [Markup('<circle class="dot" cx="{}" cy="30" r="4"/>').format(_percent(own.x(mean.value or 0)))]
    if mean.low is not None and mean.high is not None:
        span = '<line class="span" x1="{}" x2="{}" y1="30" y2="30"/>'
        parts.insert(0, Markup(span).format(_percent(own.x(mean.low)), _percent(own.x(mean.high))))
    parts.append(_label(own.x(mean.value or 0), 16, "mean", "note"))
    return Markup("").join(parts)


def _bars(shared: Axis, counts: Sequence[int], base: float, scale: float, name: str) -> Markup:
    bar = '<rect class="{}" x="{}" width="{}" y="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    gap = 0.12 * 100 / shared.bins
    parts = []
    for place, count in enumerate(counts):
        if count:
            low = shared.low + place * shared.step
            note = f"{low:g} to {low + shared.step:g} words: {count}"
            x, tall = _percent(shared.x(low) + gap / 2), abs(count * scale)
            top = base - tall if scale < 0 else base
            parts.append(Markup(bar).format(name, x, _percent(100 / shared.bins - gap), top, tall, note))
    return Markup("").join(parts)


def _median(shared: Axis, value: float, span: tuple[float, float], y: float, name: str) -> Markup:
    x = min(shared.x(value), 100)
    return _line(x, *span, f"median {name}") + _label(x, y, f"median {value:g}", f"note {name}", aside=True)


def _ticks(shared: Axis) -> Markup:
    return Markup("").join(_label(shared.x(value), HEIGHT - 6, f"{value:,.0f}", "tick") for value in shared.ticks())


def _label(x: float, y: float, text: str, name: str, *, aside: bool = False) -> Markup:
    anchor = ("start" if x < 60 else "end") if aside else "middle"
    shift = {"start": 6, "end": -6, "middle": 0}[anchor]
    body = '<text class="{}" x="{}" dx="{}" y="{:.1f}" text-anchor="{}">{}</text>'
    return Markup(body).format(name, _percent(x), shift, y, anchor, text)


def _line(x: float, top: float, bottom: float, name: str) -> Markup:
    body = '<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
    return Markup(body).format(name, _percent(x), _percent(x), top, bottom)


def _figure(parts: Iterable[Markup], label: str) -> Markup:
    body = '<svg class="chart" role="img" aria-label="{}" width="100%" height="{}">{}</svg>'
    return Markup(body).format(label, HEIGHT, Markup("").join(parts))


def _percent(value: float) -> str:
    return f"{value:.2f}%"
