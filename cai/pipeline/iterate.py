"""The iterated loop: sample from the policy, label by AI feedback, train reward and policy anew, look; and again.

    round-1/labels/      a run: the policy's own answers, compared by the recipe's judges
    round-1/pairs.jsonl  the pairs of this round and of all before it, those of files, and what was red-teamed before
    round-1/reward/      a training: the reward model, on those pairs
    round-1/policy/      a training: the policy, against that reward model
    round-1/redteam.jsonl   answers over edits for which the reward model pays more; the next one learns from them
    round-1/round.json   what was done, what it came to, and why it stopped here, if it did; written last

Every policy starts from the model that the first round sampled from, as in Bai et al. (2022, arXiv 2204.05862, 4.5): so
its KL is to that model, and what one reward model was gamed by is unlearned with the next. The judge never changes.

Left out on purpose: choosing the best round. The rounds are folders, and the last that did not stop is named.
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

from cai.audit.redteam import reward as team
from cai.audit.redteam.reward import Search, rows_of
from cai.audit.subjects import ask as asking
from cai.audit.subjects import audit as auditing
from cai.core import config as outside
from cai.core.config import Knobs
from cai.core.errors import Mistake
from cai.core.types import Message, Sampling
from cai.data import pairs as preferences
from cai.data import training_rows as lessons
from cai.data.messages import answer_dicts, message_dicts
from cai.data.pairs import Preference
from cai.pipeline import generate as pipeline
from cai.runs.files import write_json, write_text
from cai.runs.findings import write_findings
from cai.runs.folder import Run
from cai.runs.manifest import Manifest
from cai.runs.progress import Progress
from cai.runs.recipe import ModelChoice, Recipe
from cai.train.run import train as training

DONE = "round.json"
FOUND = "redteam.jsonl"
SEARCHED = 200
"""Pairs of a round whose answers are edited, at most."""
Say = Callable[[str, Mapping[str, Any]], None]
"""Told of a round's every stage by name, with an empty line; and of every line of metrics that there is in it."""
SAID = 500
"""Answers scored between two lines of the red team's."""


class Loop(Knobs):
    """How often, with what, and when to stop before the end."""

    rounds: Annotated[int, Field(ge=1, le=1000)] = 2
    method: Literal["ppo", "rloo", "grpo"] = "ppo"
    reward: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Options of the reward model's training; `members: 3` makes it an ensemble that can disagree."""
    policy: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Options of the policy's training."""
    pairs: tuple[str, ...] = ()
    """Files of pairs that every round's reward model learns from as well."""
    redteam: bool = False
    """Search each round's reward model for edits that it pays for; the next round's learns that they are no better."""
    searched: Annotated[int, Field(ge=50)] = 20_000
    """Answers that the red team may have scored in a round."""
    members: Literal["mean", "min", "mean_std"] = "min"
    """How an ensemble's members become one reward."""
    max_kl: Annotated[float, Field(gt=0)] | None = 25.0
    """Stop after a round whose policy is further from the start, in nats an answer."""
    max_disagreement: Annotated[float, Field(gt=0)] | None = None
    """Stop after a round whose ensemble disagrees more about the policy's last answers, in rewards."""
    audit: bool = True
    """Ask the policy and the start, and stop after a round with a major finding that the start has not as well."""
    audited: Annotated[int, Field(ge=2)] = 40
    """Prompts that they are asked."""


@dataclass(frozen=True, slots=True)
class IterationRound:
    """What one round came to, as in round.json."""

    number: int
    folder: Path
    told: Mapping[str, Any]

    @property
    def stopped(self) -> str:
        """Why the loop ends here; empty where it goes on."""
        return str(self.told["stopped"])


def loop(options: Mapping[str, Any]) -> Loop:
    """The options of a loop, those of its trainings checked too, before anything is computed. Raises Mistake."""
    chosen = outside.parse_options(outside.Document("iterate", dict(options), None), Loop)
    training.options_of("reward", chosen.reward)
    training.options_of(chosen.method, {"rewards": "./reward", **chosen.policy})
    for file in map(Path, chosen.pairs):
        if not any(_learned(file, "")):
            raise Mistake(str(file), "holds no pair that can be learned from", "see `cai check`")
    return chosen


def run_iterations(
    chosen: Recipe, how: Loop, out: Path, *, progress: Progress | None = None, say: Say = lambda name, line: None
) -> list[IterationRound]:
    """Do the rounds, or go on with them; those that are done are not done again. Raises Mistake, BudgetReached."""
    if chosen.sample is None or chosen.judge is None:
        raise Mistake("recipe", "compares no samples", "add `sample: {count: 2}` and a `judge`")
    if chosen.writer.backend != "transformers":
        raise Mistake("recipe", f"its writer is {chosen.writer.backend}, which cannot be trained", "use transformers")
    _same(out, chosen, how)
    done: list[IterationRound] = []
    for number in range(1, how.rounds + 1):
        done.append(_round(chosen, how, out, number, done, progress or Progress(), say))
        if done[-1].stopped:
            break
    return done


def _same(out: Path, chosen: Recipe, how: Loop) -> None:
    """Keep what is asked for; what was begun otherwise is another loop. More rounds are no other loop."""
    asked = {
        "recipe": chosen.model_dump(mode="json"),
        "loop": how.model_dump(mode="json", exclude={"rounds"}),
        "pairs": {name: lessons.data_digest(Path(name)) for name in how.pairs},
    }
    file = out / "loop.json"
    if file.is_file() and json.loads(file.read_text("utf-8")) != asked:
        raise Mistake(str(out), "holds another loop", "choose another --name, or remove the folder")
    write_json(file, asked)


def _round(
    chosen: Recipe, how: Loop, out: Path, number: int, before: list[IterationRound], progress: Progress, say: Say
) -> IterationRound:
    here = out / f"round-{number}"
    if (here / DONE).is_file():
        return IterationRound(number, here, json.loads((here / DONE).read_text("utf-8")))

    def tell(stage: str, line: Mapping[str, Any]) -> None:
        say(f"round {number} {stage}", line)

    start = _start(chosen)
    sampled = str(before[-1].folder / "policy" / "model") if before else start
    tell("labels", {})
    labels = _labelled(chosen, sampled, here / "labels", progress)
    mixed, learned = _mixed(how, here, before)
    reward = training.train(
        training.Order("reward", mixed, start, here / "reward", how.reward, chosen.seed),
        partial(tell, "reward"),
    )
    source = {"model": str(here / "reward"), "members": how.members}
    policy = training.train(
        training.Order(
            how.method, here / "labels", start, here / "policy", {**how.policy, "rewards": source}, chosen.seed
        ),
        partial(tell, how.method),
    )
    found = _redteamed(how, here, chosen.seed, partial(tell, "redteam")) if how.redteam else None
    figures = policy.figures
    tell("audit", {})
    findings = _audited(chosen, how, here, start, progress) if how.audit else []
    told = {
        "round": number, "sampled_from": sampled, "labels": labels.as_json()["counts"], **learned,
        "reward": reward.figures, "policy": figures, "redteam": found, "findings": findings,
        "stopped": _why(how, figures, findings),
    }  # fmt: skip
    write_json(here / DONE, told)
    return IterationRound(number, here, told)


def _start(chosen: Recipe) -> str:
    from cai.backends.local.options import LocalOptions

    return str(chosen.writer.options.get("model") or LocalOptions.model_fields["model"].default)


def _labelled(chosen: Recipe, policy: str, folder: Path, progress: Progress) -> Manifest:
    """The run in which the policy's own answers are compared; who judges is not changed by who writes."""
    if (folder / "manifest.json").is_file() and Run(folder).manifest.status == "finished":
        return Run(folder).manifest
    writer = ModelChoice.model_validate({"backend": "transformers", **chosen.writer.options, "model": policy})
    turned = chosen.model_copy(update={"writer": writer, "critic": chosen.critic or chosen.writer})
    return asyncio.run(pipeline.generate(turned, Run(folder), progress))


def _mixed(how: Loop, here: Path, before: list[IterationRound]) -> tuple[Path, dict[str, int]]:
    """All that the reward model learns from in one file, and how many rows of each kind. Raises Mistake."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "old_pairs": [row for one in before for row in _own(one.folder, one.number)],
        "new_pairs": list(_own(here, len(before) + 1)),
        "file_pairs": [row for name in how.pairs for row in _learned(Path(name), f"{Path(name).stem}:")],
        "redteam_pairs": [
            row
            for one in before
            if (one.folder / FOUND).is_file()
            for row in _learned(one.folder / FOUND, f"{one.number}:redteam:")
        ],
    }
    if not kinds["new_pairs"]:
        raise Mistake(str(here / "labels"), "made no pair", "the policy's answers are all alike, or no judge answered")
    rows = [row for kind in kinds.values() for row in kind]
    write_text(here / "pairs.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return here / "pairs.jsonl", {kind: len(listed) for kind, listed in kinds.items()}


def _own(folder: Path, number: int) -> Iterator[dict[str, Any]]:
    """The pairs of a round's own answers, as rows."""
    for pair in Run(folder / "labels").pairs():
        id, prompt = f"{number}:{pair.prompt.id}:{pair.source}", pair.prompt.messages
        yield _row(id, prompt, pair.chosen, pair.rejected) | {"p_chosen": pair.p_chosen}


def _learned(path: Path, prefix: str) -> Iterator[dict[str, Any]]:
    """The pairs of a file, as rows; not those of a split that nobody learns from. Raises Mistake."""
    for pair in preferences.read_pairs(path):
        if isinstance(pair, Preference) and pair.turns == 1 and pair.split not in lessons.HELD_OUT:
            said = {name: getattr(pair, name) for name in ("p_chosen", "weight", "margin")}
            given = {name: value for name, value in said.items() if value is not None}
            yield _row(f"{prefix}{pair.id}", pair.prompt, pair.chosen, pair.rejected) | given


def _row(id: str, prompt: Sequence[Message], chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "id": id,
        "prompt": message_dicts(prompt),
        "chosen": answer_dicts(chosen),
        "rejected": answer_dicts(rejected),
    }


def _redteamed(how: Loop, here: Path, seed: int, tell: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """What this round's reward model pays for that makes no answer better, kept for the next round; and how much."""
    scored = 0

    def told(more: int) -> None:
        nonlocal scored
        scored += more
        if scored // SAID > (scored - more) // SAID:
            tell({"scored": scored})

    tell({})
    try:
        cases, scores = auditing.scored_cases(here / "reward", here / "labels", SEARCHED, how.members, told)
        attack = team.attack(cases, scores, Search(budget=how.searched, seed=seed))
    except Mistake as error:  # answers with no room for edits, or a reward that tells none apart: no reason to end
        return {"rows": 0, "note": str(error)}
    rows = rows_of(attack.best)
    write_text(here / FOUND, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    said = attack.described()
    return {"rows": len(rows)} | {name: said[name] for name in ("answers", "scored", "chain", "held_out")}


def _audited(chosen: Recipe, how: Loop, here: Path, start: str, progress: Progress) -> list[dict[str, Any]]:
    """What probes find in the policy's answers against those of the start."""
    prompts = chosen.prompts.model_copy(update={"limit": min(how.audited, chosen.prompts.limit or how.audited)})
    probes = auditing.probe_options(asked=chosen.audit)
    sampling = Sampling(temperature=0.7, max_tokens=chosen.sample.max_tokens if chosen.sample else 192)
    asked, law = asking.Asked(prompts, sampling, chosen.seed), chosen.constitution
    audit = asyncio.run(
        asking.audit_policy(str(here / "policy"), start, asked, probes, here, law=law, progress=progress)
    )
    write_findings(here, [audit])
    return [
        {name: getattr(one, name) for name in ("probe", "what", "value", "severity", "inherited", "note")}
        for one in audit.failed
    ]


def _why(how: Loop, figures: Mapping[str, Any], findings: list[dict[str, Any]]) -> str:
    """Why the loop should not go on after a round, or nothing."""
    for name, limit in (("kl", how.max_kl), ("disagreement", how.max_disagreement)):
        value = figures.get(name)
        if limit is not None and value is not None and value > limit:
            return f"{name} {value:.3g} is above {limit:g}"
    major = [finding for finding in findings if finding["severity"] == "major" and not finding["inherited"]]
    return f"the audit found {major[0]['probe']}: {major[0]['what']}" if major else ""
