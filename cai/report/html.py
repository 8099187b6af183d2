"""What the HTML pages share: the Jinja environment and how numbers are written."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cai.core.safe_text import safe_text
from cai.core.stats import Interval

HERE = Path(__file__).parent


def rendered(template: str, **values: object) -> str:
    """A page with this room's style and script, under a policy that lets nothing else in."""
    style, script = ((HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = _content_policy(style, script)
    page = _environment().get_template(template)
    return page.render(style=Markup(style), script=Markup(script), policy=policy, **values)


@cache  # a page is built after every stage of a course, and compiling its templates takes as long as the rest
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: safe_text(value) if type(value) is str else value,
    )
    made.filters |= {"number": format_number, "span": format_span, "clock": format_seconds}
    return made


def format_number(value: float | None, digits: int = 0) -> str:
    """1234.5 -> `1,234`, with a true minus; None -> a dash."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−")


def format_span(found: Interval, digits: int = 1) -> str:
    """`−60.2 [−75.1, −46.0]`; what few values cannot say is left out."""
    if found.low is None or found.high is None:
        return format_number(found.value, digits)
    value, low, high = (format_number(one, digits) for one in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def format_seconds(seconds: float) -> str:
    """212.4 -> `3 min 32 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    named = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in named if count) or f"{seconds:.1f} s"


def _content_policy(style: str, script: str) -> str:
    """A content security policy under which this style and this script work, and nothing else does."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
