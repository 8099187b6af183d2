"""Panel of judges: the probability that one of two answers is better (arXiv 2212.08073, section 4; 2309.00267).

A judge that sees both answers is asked in both orders, and p = (p1 + 1 - p2) / 2: a position bias adds as much to p1 as
to p2 and cancels. Principles are drawn for each pair by rendezvous hashing, as for critiques.

Left out on purpose: how a model is asked (see the judges in `cai/judges/`), and rounding: p is the label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cai.constitution.principles import NoPrinciple, ranked
from cai.core.concurrency import together
from cai.core.plugin_types import Judge
from cai.core.seeds import uniform
from cai.core.types import (
    Comparison,
    Constitution,
    Failure,
    GateHit,
    Message,
    Pair,
    Principle,
    Prompt,
    Verdict,
    sample_numbers,
)
from cai.judges.panel.verdict import combine_opinions, combine_verdicts
from cai.runs.recipe import JudgeSettings


@dataclass(frozen=True, slots=True)
class Juror:
    """One judge of a run: its record, its context and options, and the model's name."""

    method: str
    record: Judge
    context: Any  # the judge's own type, not used here
    options: Any
    model: str


@dataclass(frozen=True, slots=True)
class Panel:
    """The judges of a run, the principles they judge by, and how their verdicts are combined."""

    jurors: tuple[Juror, ...]
    constitution: Constitution
    settings: JudgeSettings
    seed: int

    @property
    def concurrency(self) -> int:
        """How many pairs to judge at once, so that every model has as many requests as it can use."""
        return max(int(juror.context.model.concurrency) for juror in self.jurors)

    @property
    def calls(self) -> int:
        """Calls that one pair takes at most."""
        return sum(self._calls(juror) for juror in self.jurors)

    def _calls(self, juror: Juror) -> int:
        able = [principle for principle in self.constitution.principles if getattr(principle, juror.record.needs)]
        each = max(juror.record.calls(juror.options, principle) for principle in able)
        orders = 2 if juror.record.order and self.settings.orders == "both" else 1
        return min(self.settings.principles, len(able)) * orders * each

    async def verdict(self, prompt: Prompt, first: str, second: str, name: str) -> Verdict:
        """The combined verdict on two answers; `name` is part of the random seed. Raises CallFailed, NoPrinciple."""
        verdicts = await together(self._one(juror, prompt, first, second, name) for juror in self.jurors)
        return verdicts[0] if len(verdicts) == 1 else combine_verdicts(verdicts, self.settings.combine)

    async def _one(self, juror: Juror, prompt: Prompt, first: str, second: str, name: str) -> Verdict:
        able = [principle for principle in self.constitution.principles if getattr(principle, juror.record.needs)]
        drawn = ranked(able, prompt, self.seed, "judge", name)[: self.settings.principles]
        turns = self._turns(juror.record, prompt, name)
        examples = self._worked(prompt, name) if juror.record.order else ()
        asked = [Comparison(f"{prompt.id}/{name}", prompt, first, second, principle, examples) for principle in drawn]
        opinions = await together(
            juror.record.judge(one.swap() if swap else one, juror.context, juror.options)
            for one in asked
            for swap in turns
        )
        found = combine_opinions(opinions, turns)
        return replace(
            found,
            method=juror.method,
            judge=juror.model,
            principles=tuple(principle.id for principle in drawn),
            orders=found.orders if juror.record.order else (),
        )

    def _turns(self, record: Judge, prompt: Prompt, name: str) -> tuple[bool, ...]:
        """For each call, whether the answers are swapped."""
        if not record.order:
            return (False,)
        return (False, True) if self.settings.orders == "both" else (not self.shows_first(prompt, name),)

    def shows_first(self, prompt: Prompt, name: str) -> bool:
        """Whether the first answer is the one shown first, where a pair is shown in one order only."""
        return uniform(self.seed, prompt.id, "order", name) < 0.5

    def _worked(self, prompt: Prompt, name: str) -> tuple[Comparison, ...]:
        """Worked comparisons from the constitution's examples, each with a drawn principle of its own.

        The better answer is shown first and second in alternation; otherwise its position could be imitated.
        """
        able = [principle for principle in self.constitution.principles if principle.compare and _example_of(principle)]
        try:
            drawn = ranked(able, prompt, self.seed, "worked", name)[: self.settings.examples]
        except NoPrinciple:  # no principle with an example applies to this prompt
            return ()
        parity = uniform(self.seed, prompt.id, "worked", name) < 0.5
        cases = [_case(principle, *example) for principle in drawn if (example := _example_of(principle))]
        return tuple(case.swap() if place % 2 == parity else case for place, case in enumerate(cases))


def _example_of(principle: Principle) -> tuple[str, str, str] | None:
    """Prompt, answer and revision of the principle's first example with a revision."""
    cases = ((case.prompt, case.answer, case.revision) for case in principle.examples if case.revision)
    return next(cases, None)


def _case(principle: Principle, prompt: str, answer: str, revision: str) -> Comparison:
    """A worked comparison: a revision is better, by its principle, than what it revised."""
    asked = Prompt("", (Message("user", prompt),))
    return Comparison("", asked, revision, answer, principle, better="first")


def label_pair(pair: Pair, verdict: Verdict, settings: JudgeSettings) -> Pair | Failure:
    """The pair with its label; a Failure where the judge abstained, or the recipe drops what was judged worse.

    `verdict` has `pair.chosen` as the first answer. Samples are named by the verdict; a revision that was judged worse
    stays chosen, tagged, unless the recipe swaps it.
    """
    if verdict.p is None:
        return Failure(pair.prompt.id, "judge", "abstained", "the judge would not say", sample=pair.sample)
    pair = replace(pair, p_chosen=verdict.p, principles=pair.principles or verdict.principles, verdict=verdict)
    if verdict.p >= 0.5:
        return pair
    if pair.source.startswith("sample:"):
        return swapped(pair)
    detail = f"P(better) {verdict.p:.3f}"
    if settings.worse == "drop":
        return Failure(pair.prompt.id, "pair", f"gate:{WORSE}", detail, sample=pair.sample)
    if settings.worse == "swap":
        return replace(swapped(pair), gates=(*pair.gates, GateHit(WORSE, "repair", f"swapped: {detail}")))
    return replace(pair, gates=(*pair.gates, GateHit(WORSE, "tag", detail)))


WORSE = "judged_worse"
"""The gate that notices a revision judged worse than what it revised."""


def swapped(pair: Pair) -> Pair:
    """The same judged pair with chosen and rejected exchanged."""
    source, sample = pair.source, pair.sample
    if source.startswith("sample:"):
        sample, chosen = sample_numbers(pair)
        source = f"sample:{chosen}>{sample}"
    return replace(
        pair,
        chosen=pair.rejected,
        rejected=pair.chosen,
        p_chosen=1 - pair.p_chosen,
        verdict=pair.verdict and pair.verdict.swap(),
        source=source,
        sample=sample,
        writers=pair.writers[::-1],
    )


def name(pair: Pair) -> str:
    """The name of a pair for its random seed: the two answers in it, in either order."""
    if pair.source.startswith("sample:"):
        return "sample:" + "-".join(map(str, sorted(sample_numbers(pair))))
    return f"{pair.sample}:{pair.source}"
