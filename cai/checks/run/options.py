"""What `cai check` lets pass, and what it looks with; every key is set with `-o name=value`.

A threshold has the name of its finding. It is the largest share of rows that passes; for `always_longer`, `length_skew`
and `refusals`, which can err to either side, the largest distance from what a fair set would have.

Left out on purpose: switching a check off. A threshold of 1 lets everything pass, and the number is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cai.core.config import Document, Knobs, overridden, parse_options

Share = Annotated[float, Field(ge=0, le=1)]


class Options(Knobs):
    """Thresholds, and the few numbers that say what counts."""

    format: str = ""
    """How the files hold a pair; told from the rows where not given."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """What a trainer keeps of prompt and answer: words, or tokens where there is a tokenizer."""
    tokenizer: str = ""
    """A model folder or hub id whose tokenizer counts."""
    near: Annotated[float, Field(gt=0, le=1)] = 0.97
    """Similarity in words from which the two answers of a pair are nearly identical."""
    alike: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    """Jaccard similarity of words and word pairs from which two rows, or two prompts, are near-duplicates."""
    max_ratio: Annotated[float, Field(gt=1)] = 5.0
    """Length of one side over the other's from which `length_ratio` counts a pair."""

    bad_rows: Share = 0
    no_pairs: Share = 0
    no_prompt: Share = 0
    several_turns: Share = 0.05
    empty: Share = 0
    identical: Share = 0
    near_identical: Share = 0.02
    identical_when_cut: Share = 0
    shared_start: Share = 0.5
    length_ratio: Share = 0.25
    length_skew: Share = 0.1
    always_longer: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    refusals: Share = 0.1
    openings: Share = 0.2
    boilerplate: Share = 0.1
    think_blocks: Share = 0
    language: Share = 0.02
    duplicates: Share = 0.01
    near_duplicates: Share = 0.02
    contradictions: Share = 0
    leakage: Share = 0
    near_leakage: Share = 0.01
    inverted_scores: Share = 0
    score_outliers: Share = 0.01


def check_options(overrides: Sequence[str] = ()) -> Options:
    """The defaults with `name=value` overrides, of which the last one holds. Raises Mistake."""
    return parse_options(Document("-o", overridden({}, overrides, "identical=0.01"), None), Options)
