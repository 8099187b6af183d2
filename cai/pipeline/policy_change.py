"""What a training changed: the answers of the writer and of the trained policy, to prompts that no training saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cai.audit import repetition
from cai.audit.subjects.ask import answers, policy
from cai.audit.subjects.audit import probe_options, run_probes, spoken
from cai.core.phrases import words
from cai.core.plugin_types import Case, Exhibit
from cai.core.stats import change, interval
from cai.core.types import Prompt, Sampling
from cai.data.prompts import read_prompts
from cai.data.splits import make_split
from cai.data.training_rows import HELD_OUT
from cai.runs.files import record_as_json, write_json
from cai.runs.findings import Audit, write_findings
from cai.runs.folder import Run
from cai.runs.journal import Journal
from cai.runs.manifest import PolicyChange
from cai.runs.models import open_all
from cai.runs.progress import Progress
from cai.runs.recipe import Recipe

FILE = "policy.json"
REPEATING = 0.2
"""Share of word 4-grams that came before, from which an answer counts as repeating."""


async def compare_policies(recipe: Recipe, run: Run, before: str, after: str, progress: Progress) -> PolicyChange:
    """Ask both on the prompts kept out of training; `after` is a training of the run. Raises Mistake.

    The answers are kept in policy.json, and what the probes find joins the run's findings.
    """
    prompts = _held_out(recipe)
    if not prompts:
        return PolicyChange(after, 0, why="no prompt is kept out of training: raise export.test_share")
    models, lost = {"before": before, "after": str(run.path / "train" / after)}, Counter[str]()
    found = {side: await _answers(recipe, run, side, name, prompts, progress, lost) for side, name in models.items()}
    both = [prompt for prompt in prompts if all(prompt.id in side for side in found.values())]
    pairs = [(found["before"][prompt.id], found["after"][prompt.id]) for prompt in both]
    changed = replace(policy_change(pairs, recipe.seed), policy=after, models=models, lost=dict(lost))
    rows = [
        {"id": prompt.id, "prompt": prompt.messages[-1].content, "before": old, "after": new}
        for prompt, (old, new) in zip(both, pairs, strict=True)
    ]
    write_json(run.path / FILE, record_as_json(changed) | {"rows": rows})
    _audit(recipe, run, f"policy {after} against the writer", both, pairs, lost)
    return changed


def _held_out(recipe: Recipe) -> list[Prompt]:
    split = make_split(recipe.export.test_share, recipe.seed)
    read = (prompt for prompt in read_prompts(recipe.prompts) if isinstance(prompt, Prompt))
    return [prompt for prompt in read if split(prompt) in HELD_OUT]


async def _answers(
    recipe: Recipe, run: Run, side: str, name: str, prompts: Sequence[Prompt], progress: Progress, lost: Counter[str]
) -> Mapping[str, str]:
    sampling = Sampling(0.0, 1.0, recipe.draft.max_tokens)
    with Journal(run.path.parent / "journal.sqlite") as journal:
        model = (await open_all({side: policy(name)}, journal, progress, None))[side]
        progress.begin(f"policy {side}", len(prompts))
        try:
            return await answers(model, prompts, sampling, recipe.seed, progress, lost)
        finally:
            await model.close()


def _audit(
    recipe: Recipe, run: Run, of: str, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], lost: Counter[str]
) -> None:
    cases = tuple(Case(one.id, one.messages, new, old) for one, (old, new) in zip(prompts, pairs, strict=True))
    exhibit = Exhibit(cases, texts=tuple(spoken(run)))
    found = tuple(run_probes("policy", exhibit, probe_options(asked=recipe.audit), of))
    write_findings(run.path, [Audit(of, len(cases), found, lost.total())])


def policy_change(pairs: Sequence[tuple[str, str]], seed: int) -> PolicyChange:
    """What changed from the first to the second answer of each pair: words, and whether it still is an answer."""
    others = [(old, new) for (old, _), (_, new) in zip(pairs, [*pairs[1:], *pairs[:1]], strict=True)]
    old, new = ([len(side.split()) for side in sides] for sides in (zip(*pairs, strict=True) if pairs else ((), ())))
    return PolicyChange(
        policy="",
        n=len(pairs),
        words=change(old, new, seed=seed),
        median_before=interval(old, "median", seed=seed).value,
        median_after=interval(new, "median", seed=seed).value,
        shorter=sum(b < a for a, b in zip(old, new, strict=True)),
        longer=sum(b > a for a, b in zip(old, new, strict=True)),
        empty=(sum(not a.strip() for a, _ in pairs), sum(not b.strip() for _, b in pairs)),
        repetitive=(sum(_repeats(a) for a, _ in pairs), sum(_repeats(b) for _, b in pairs)),
        kept=interval([words_kept(a, b) for a, b in pairs], seed=seed),
        kept_of_another=interval([words_kept(a, b) for a, b in others], seed=seed),
    )


def _repeats(answer: str) -> bool:
    return repetition.repeated(answer) >= REPEATING


def words_kept(old: str, new: str) -> float:
    """Share of the new answer's longer words that the old answer has too; 0 for an answer without any."""
    before, after = ({word for word in words(side) if len(word) > 3} for side in (old, new))
    return len(before & after) / len(after) if after else 0.0
