"""Iterated RLAIF: each round samples, labels by AI feedback, trains a reward model and a policy, and audits.

    round-1/labels/         a run: the policy's answers, compared by the recipe's judges
    round-1/pairs.jsonl     the pairs of this and earlier rounds, of files, and of earlier red-team runs
    round-1/reward/         a training: the reward model, on those pairs
    round-1/policy/         a training: the policy, with that reward model
    round-1/redteam.jsonl   answers over edits with a higher reward; the next reward model is trained on them
    round-1/round.json      the result, and why the loop stopped here, if it did; written last

Every policy is trained from the initial model of the first round, as in Bai et al. (2022, arXiv 2204.05862, 4.5): that
is its reference model, and exploits of one reward model do not carry over to the next. The judge never changes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cai.audit.redteam.reward import Search, attack, rows_of
from cai.audit.subjects.ask import Asked, audit_policy
from cai.audit.subjects.audit import probe_options, scored_cases
from cai.core.config import Document, Knobs, parse_options
from cai.core.errors import Mistake
from cai.core.types import Message, Sampling
from cai.data.messages import answer_dicts, message_dicts
from cai.data.pairs import Preference, read_pairs
from cai.data.training_rows import HELD_OUT, data_digest
from cai.pipeline.generate import generate
from cai.runs.files import restored, write_text
from cai.runs.findings import write_findings
from cai.runs.folder import Run
from cai.runs.iteration import LoopSettings, RoundFinding, RoundRedTeam, RoundResult
from cai.runs.manifest import Manifest
from cai.runs.progress import Progress
from cai.runs.recipe import ModelChoice, Recipe
from cai.train.run import train as training

REDTEAM_ROWS = "redteam.jsonl"
SEARCHED = 200
"""Maximum pairs of a round whose answers are edited by the red team."""
OnMetrics = Callable[[str, Mapping[str, object]], None]
"""Called with a stage's name and an empty line when it begins, and with each of its lines of metrics."""
SCORED_PER_LINE = 500
"""Answers scored between two lines of progress of the red team."""


class Loop(Knobs):
    """Options of `cai iterate`."""

    rounds: Annotated[int, Field(ge=1, le=1000)] = 2
    method: Literal["ppo", "rloo", "grpo"] = "ppo"
    reward: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Options of the reward model's training; `members: 3` makes it an ensemble."""
    policy: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Options of the policy's training."""
    pairs: tuple[str, ...] = ()
    """Files of pairs that every round's reward model is also trained on."""
    redteam: bool = False
    """Search each round's reward model for edits that raise it; the next one is trained to reject them."""
    searched: Annotated[int, Field(ge=50)] = 20_000
    """Maximum answers that the red team scores in a round."""
    members: Literal["mean", "min", "mean_std"] = "min"
    """How an ensemble's scores are combined."""
    max_kl: Annotated[float, Field(gt=0)] | None = 25.0
    """Stop after a round whose policy has a higher KL to the reference model, in nats per answer."""
    max_disagreement: Annotated[float, Field(gt=0)] | None = None
    """Stop after a round whose ensemble disagrees more on the policy's last answers, in units of reward."""
    audit: bool = True
    """Audit the policy against the initial model; stop after a major finding that the initial model does not share."""
    audited: Annotated[int, Field(ge=2)] = 40
    """Prompts of that audit."""


@dataclass(frozen=True, slots=True)
class IterationRound:
    """A finished round: its number, folder and result."""

    number: int
    folder: Path
    result: RoundResult

    @property
    def stopped(self) -> str:
        """Why the loop ends here; empty where it continues."""
        return self.result.stopped


def loop(options: Mapping[str, object]) -> Loop:
    """The options of a loop, checked with those of its trainings before anything is computed. Raises Mistake."""
    found = parse_options(Document("iterate", dict(options), None), Loop)
    training.options_of("reward", found.reward)
    training.options_of(found.method, {"rewards": "./reward", **found.policy})
    for file in map(Path, found.pairs):
        if not any(_file_rows(file, "")):
            raise Mistake(str(file), "has no pair to train on", "see `cai check`")
    return found


def run_iterations(
    recipe: Recipe, how: Loop, out: Path, *, progress: Progress | None = None,
    on_metrics: OnMetrics = lambda name, line: None,
) -> list[IterationRound]:  # fmt: skip
    """Run the rounds, or resume them; finished rounds are not repeated. Raises Mistake, BudgetReached."""
    if recipe.sample is None or recipe.judge is None:
        raise Mistake("recipe", "compares no samples", "add `sample: {count: 2}` and a `judge`")
    if recipe.writer.backend != "transformers":
        raise Mistake("recipe", f"its writer is {recipe.writer.backend}, which cannot be trained", "use transformers")
    _keep_settings(out, recipe, how)
    done: list[IterationRound] = []
    for number in range(1, how.rounds + 1):
        done.append(_round(recipe, how, out, number, done, progress or Progress(), on_metrics))
        if done[-1].stopped:
            break
    return done


def _keep_settings(out: Path, recipe: Recipe, how: Loop) -> None:
    """Write loop.json. Raises Mistake where the folder has a loop with other settings; `rounds` may change."""
    settings = LoopSettings(
        recipe=recipe.model_dump(mode="json"),
        loop=how.model_dump(mode="json", exclude={"rounds"}),
        pairs={name: data_digest(Path(name)) for name in how.pairs},
    )
    before = LoopSettings.read(out)
    if before is not None and before != settings:
        raise Mistake(str(out), "holds another loop", "choose another --name, or remove the folder")
    settings.write(out)


def _round(
    recipe: Recipe, how: Loop, out: Path, number: int, before: list[IterationRound], progress: Progress,
    on_metrics: OnMetrics,
) -> IterationRound:  # fmt: skip
    here = out / f"round-{number}"
    if (done := RoundResult.read(here)) is not None:
        return IterationRound(number, here, done)

    def report(stage: str, line: Mapping[str, object]) -> None:
        on_metrics(f"round {number} {stage}", line)

    initial, seed = _initial_model(recipe), recipe.seed
    sampled = str(restored(before[-1].folder / "policy" / "model")) if before else initial
    report("labels", {})
    labels = _labelled(recipe, sampled, here / "labels", progress)
    mixed, pair_counts = _mixed(how, here, before)
    order = training.Order("reward", mixed, initial, here / "reward", how.reward, seed)
    reward = training.train(order, partial(report, "reward"))
    options = {**how.policy, "rewards": {"model": str(here / "reward"), "members": how.members}}
    order = training.Order(how.method, here / "labels", initial, here / "policy", options, seed)
    policy = training.train(order, partial(report, how.method))
    redteam = _redteamed(how, here, seed, partial(report, "redteam")) if how.redteam else None
    report("audit", {})
    findings = _audited(recipe, how, here, initial, progress) if how.audit else ()
    result = RoundResult(
        number, sampled, labels.counts, **pair_counts, reward=reward.figures, policy=policy.figures, redteam=redteam,
        findings=findings, stopped=_why(how, policy.figures, findings),
    )  # fmt: skip
    result.write(here)
    return IterationRound(number, here, result)


def _initial_model(recipe: Recipe) -> str:
    from cai.backends.local.options import LocalOptions

    return str(recipe.writer.options.get("model") or LocalOptions.model_fields["model"].default)


def _labelled(recipe: Recipe, policy: str, folder: Path, progress: Progress) -> Manifest:
    """The run in which the policy's answers are compared; the judge stays the same for every policy."""
    if (folder / "manifest.json").is_file() and Run(folder).manifest.status == "finished":
        return Run(folder).manifest
    writer = ModelChoice.model_validate({"backend": "transformers", **recipe.writer.options, "model": policy})
    changed = recipe.model_copy(update={"writer": writer, "critic": recipe.critic or recipe.writer})
    return asyncio.run(generate(changed, Run(folder), progress))


def _mixed(how: Loop, here: Path, before: list[IterationRound]) -> tuple[Path, dict[str, int]]:
    """Write the reward model's training rows to one file; the number of rows of each kind. Raises Mistake."""
    kinds: dict[str, list[dict[str, object]]] = {
        "old_pairs": [row for one in before for row in _round_rows(one.folder, one.number)],
        "new_pairs": list(_round_rows(here, len(before) + 1)),
        "file_pairs": [row for name in how.pairs for row in _file_rows(Path(name), f"{Path(name).stem}:")],
        "redteam_pairs": [
            row
            for one in before
            if (one.folder / REDTEAM_ROWS).is_file()
            for row in _file_rows(one.folder / REDTEAM_ROWS, f"{one.number}:redteam:")
        ],
    }
    if not kinds["new_pairs"]:
        raise Mistake(str(here / "labels"), "has no pair", "the policy's answers are all equal, or no judge answered")
    rows = [row for kind in kinds.values() for row in kind]
    write_text(here / "pairs.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return here / "pairs.jsonl", {kind: len(listed) for kind, listed in kinds.items()}


def _round_rows(folder: Path, number: int) -> Iterator[dict[str, object]]:
    """The pairs of a round's labels, as rows."""
    for pair in Run(folder / "labels").pairs():
        id, prompt = f"{number}:{pair.prompt.id}:{pair.source}", pair.prompt.messages
        yield _row(id, prompt, pair.chosen, pair.rejected) | {"p_chosen": pair.p_chosen}


def _file_rows(path: Path, prefix: str) -> Iterator[dict[str, object]]:
    """The pairs of a file, as rows, without those of held-out splits. Raises Mistake."""
    for pair in read_pairs(path):
        if isinstance(pair, Preference) and pair.turns == 1 and pair.split not in HELD_OUT:
            columns = {name: getattr(pair, name) for name in ("p_chosen", "weight", "margin")}
            given = {name: value for name, value in columns.items() if value is not None}
            yield _row(f"{prefix}{pair.id}", pair.prompt, pair.chosen, pair.rejected) | given


def _row(id: str, prompt: Sequence[Message], chosen: str, rejected: str) -> dict[str, object]:
    return {
        "id": id,
        "prompt": message_dicts(prompt),
        "chosen": answer_dicts(chosen),
        "rejected": answer_dicts(rejected),
    }


def _redteamed(how: Loop, here: Path, seed: int, report: Callable[[Mapping[str, object]], None]) -> RoundRedTeam:
    """Search for edits that raise this round's reward, and keep them for the next reward model."""
    scored = 0

    def on_scored(count: int) -> None:
        nonlocal scored
        scored += count
        if scored // SCORED_PER_LINE > (scored - count) // SCORED_PER_LINE:
            report({"scored": scored})

    report({})
    try:
        cases, scores = scored_cases(here / "reward", here / "labels", SEARCHED, how.members, on_scored)
        found = attack(cases, scores, Search(budget=how.searched, seed=seed))
    except Mistake as error:  # answers without room for edits, or a constant reward: no reason to stop the loop
        return RoundRedTeam(0, str(error))
    rows = rows_of(found.best)
    write_text(here / REDTEAM_ROWS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return RoundRedTeam(len(rows), "", found.answers, found.scored, found.chain, found.held_out)


def _audited(recipe: Recipe, how: Loop, here: Path, initial: str, progress: Progress) -> tuple[RoundFinding, ...]:
    """The findings that fail when the policy's answers are compared to those of the initial model."""
    prompts = recipe.prompts.model_copy(update={"limit": min(how.audited, recipe.prompts.limit or how.audited)})
    sampling = Sampling(temperature=0.7, max_tokens=recipe.sample.max_tokens if recipe.sample else 192)
    audit = asyncio.run(
        audit_policy(
            str(here / "policy"), initial, Asked(prompts, sampling, recipe.seed), probe_options(asked=recipe.audit),
            here, constitution=recipe.constitution, progress=progress,
        )
    )  # fmt: skip
    write_findings(here, [audit])
    return tuple(
        RoundFinding(one.probe, one.what, one.value, one.severity, one.inherited, one.note) for one in audit.failed
    )


def _why(how: Loop, figures: Mapping[str, Any], findings: Sequence[RoundFinding]) -> str:
    """Why the loop stops after a round; empty where it continues."""
    for name, limit in (("kl", how.max_kl), ("disagreement", how.max_disagreement)):
        value = figures.get(name)
        if limit is not None and value is not None and value > limit:
            return f"{name} {value:.3g} is above {limit:g}"
    major = [finding for finding in findings if finding.severity == "major" and not finding.inherited]
    return f"the audit found {major[0].probe}: {major[0].what}" if major else ""
