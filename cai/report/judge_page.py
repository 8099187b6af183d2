"""The judges in the report: who judged, how often they were right, and how sure they may be; also a page of its own.

Left out on purpose: computing. What is shown was counted by the run, or by `cai judge-card`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata

from markupsafe import Markup

from cai.core.calibration import Bin
from cai.report import svg
from cai.report.cards.judge import shares
from cai.report.html import rendered
from cai.runs.judge_card import JudgeCard, JudgeFigures, JudgeSummary


def judge_section(judge: JudgeSummary) -> dict[str, object]:
    """What the section shows: how the run's labels came about, and figures of them and of each gold file."""
    sets = [("This run's labels", judge.labels)] if judge.labels else []
    sets += [(f"Measured on {name}", figures) for name, figures in judge.gold.items()]
    return {"judge": judge, "cards": [_card(name, figures) for name, figures in sets]}


def judge_page(card: JudgeCard) -> str:
    """One offline page of a card that `cai judge-card` made."""
    found = judge_section(replace(card.judge, gold=card.gold))
    return rendered("judge.page.html.j2", said=card, found=found, version=metadata.version("cai"))


def _card(name: str, figures: JudgeFigures) -> dict[str, object]:
    rows = [(title.strip().capitalize(), found) for title, found in shares(figures) if found]
    along = svg.Axis(-0.5, 1.5, 1)
    calibration = figures.calibration
    return {
        "name": name,
        "card": figures,
        "rows": [
            {"name": one.capitalize(), "found": found, "whisker": svg.whisker(found, along)} for one, found in rows
        ],
        "scale": svg.scale(along),
        "plot": reliability(calibration.bins) if calibration and calibration.bins else None,
        "scaling": calibration.scaling if calibration else None,
    }


def reliability(bins: Sequence[Bin]) -> Markup:
    """Accuracy by confidence: dots as large as their share of the pairs, on the diagonal where p means what it says."""
    most = max(part.n for part in bins)
    floor, top = svg.HEIGHT - 24, 12

    def y(accuracy: float) -> float:
        return floor - (floor - top) * accuracy

    parts = [svg.rule(y(level), "base" if level == 0 else "grid") for level in (0, 0.25, 0.5, 0.75, 1)]
    parts += [svg.label(100, y(level) - 3, f"{level:g}", "tick") for level in (0.25, 0.5, 0.75, 1)]
    parts += [svg.label(200 * (p - 0.5), svg.HEIGHT - 6, f"{p:g}", "tick") for p in (0.5, 0.6, 0.7, 0.8, 0.9, 1)]
    diagonal = '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 1 1" preserveAspectRatio="none">{}</svg>'
    line = Markup('<path class="diagonal" d="M0 1 L1 0" vector-effect="non-scaling-stroke"/>')
    parts.append(Markup(diagonal).format(y(1), y(0.5) - y(1), line))
    dot = '<circle class="dot" cx="{:.2f}%" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
    for part in bins:
        note = f"{part.n} pairs: confidence {part.confidence:.3f}, right {part.accuracy:.3f}"
        x, size = 200 * (part.confidence - 0.5), 3 + 6 * (part.n / most) ** 0.5
        parts.append(Markup(dot).format(x, y(part.accuracy), size, note))
    return svg.figure(parts, "Accuracy by confidence")
