"""A recipe: one YAML file that says everything one run does.

Every key has a default but the four that say what to do: constitution, prompts, writer, templates. Unknown keys are
errors with a suggestion; `-o critique.rounds=4` on the command line sets a key as the file would.

Left out on purpose: includes, inheritance and variables. A recipe can be read by looking at it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cai.core.config import Document, Knobs, Share, overridden, parse_options, read_yaml
from cai.core.errors import Mistake
from cai.core.plugin_types import Gate
from cai.core.plugins import find_plugin, is_outside, plugin_names, shipped, suggest
from cai.core.types import Action, JsonObject, Sampling
from cai.runs.budget import Price

STAGES = ("draft", "critique", "revise")


class PromptSource(Knobs):
    """Where prompts come from."""

    path: str
    """A JSONL, JSON, CSV or parquet file, a `datasets` folder, a hub id, or a shipped set such as `everyday`."""
    column: str = "prompt"
    """The column that holds a prompt as text, where there is no `messages`."""
    split: str = "train"
    """The split of a `datasets` folder or hub id."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take only the first so many rows."""


class ModelChoice(Knobs):
    """A model: the backend's name, and that backend's own options, which it checks itself."""

    model_config = ConfigDict(extra="allow")
    backend: str
    price: Price | None = None
    """Per million tokens, for cost and --max-cost; by the model's name from genai-prices, where not given."""

    @property
    def options(self) -> JsonObject:
        """What the backend's Options are made from."""
        return dict(self.model_extra or {})


class Generation(Knobs):
    """How a stage samples."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 512

    def sampling(self, stop: tuple[str, ...]) -> Sampling:
        """These settings with the template's stop texts."""
        return Sampling(self.temperature, self.top_p, self.max_tokens, stop)


class DraftSettings(Generation):
    """First answers. Temperature 1, as in the paper: a draft must be able to be at fault."""

    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    """Drafts per prompt, each with a life of its own."""


class CritiqueSettings(Generation):
    """Critiques: how many rounds, and what a round is."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    rounds: Annotated[int, Field(ge=1, le=64)] = 4
    """Critique-and-revise rounds; the context is reset after each."""
    ask: bool = True
    """False: revise directly, without a critique."""
    examples: Annotated[int, Field(ge=0, le=32)] = 3
    """Worked cases shown to the model, the principle's own first."""
    stop_when_clean: bool = False
    """End a trace at the first critique that finds nothing; needs a template that asks for a verdict."""


class ReviseSettings(Generation):
    """Revisions."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7


class SampleSettings(Knobs):
    """Several answers to each prompt, to be compared, in place of one to be revised. Needs a `judge`."""

    count: Annotated[int, Field(ge=1, le=1000)] = 2
    """Answers by each writer at each temperature."""
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0, le=5)], ...], Field(min_length=1)] = (1.0,)
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    writers: tuple[ModelChoice, ...] = ()
    """Who answers beside `writer`."""

    @property
    def answers(self) -> int:
        """Answers to each prompt, in all."""
        return self.count * len(self.temperatures) * (1 + len(self.writers))

    @model_validator(mode="after")
    def _one_answer_cannot_be_compared(self) -> SampleSettings:
        if self.answers < 2:
            raise ValueError("makes one answer to each prompt; set count: 2 or more")
        return self


class PairSettings(Knobs):
    """Which answers become chosen and rejected."""

    rounds: bool = False
    """Of a trace: also each revision with the one before it, not only the last with the draft."""
    pairing: Literal["all", "adjacent", "random", "best_worst"] = "all"
    """Of samples, in an order drawn by digest: every two, each with the next, one two at random, or all are judged and
    the best is paired with the worst."""


class JurorSettings(Knobs):
    """One judge: the way to ask, that way's own options, and who is asked."""

    model_config = ConfigDict(extra="allow")
    method: str
    """A file in `cai/judges/`: logprob, sampled, likelihood, cot, checks, score."""
    model: ModelChoice | None = None
    """The critic, else the writer, where not given."""
    template: str | None = None
    """A name or path; the name that `templates` has for critiques, where not given."""

    @property
    def options(self) -> JsonObject:
        """What the judge's Options are made from."""
        return dict(self.model_extra or {})


def _judging(value: object) -> object:
    if isinstance(value, str):
        return {"by": {"method": value}}
    return {"by": value} if isinstance(value, list) or (isinstance(value, dict) and "method" in value) else value


def _jurors(value: object) -> object:
    listed = value if isinstance(value, list | tuple) else [value]
    return [{"method": juror} if isinstance(juror, str) else juror for juror in listed]


class JudgeSettings(Knobs):
    """Who says which of two answers is better, and how it is asked."""

    by: Annotated[tuple[JurorSettings, ...], BeforeValidator(_jurors), Field(min_length=1)]
    """One judge or several."""
    combine: Literal["mean", "majority", "minimum"] = "mean"
    """How several become one: mean p, share of votes, or the least sure where all agree and a tie where they do not."""
    orders: Literal["both", "one"] = "both"
    """Both orders are averaged; `one` is drawn by digest, at half the price and with the judge's position bias."""
    principles: Annotated[int, Field(ge=1, le=1000)] = 1
    """Principles drawn for a pair; the probabilities are averaged."""
    examples: Annotated[int, Field(ge=0, le=32)] = 2
    """Worked comparisons shown, each by a principle of its own."""
    worse: Literal["drop", "tag", "swap"] = "tag"
    """What becomes of a revision that is judged worse than what it revised."""
    gold: tuple[str, ...] = ()
    """Labelled pairs to measure the judge on, for the data set's card: JSONL of prompt, chosen, rejected."""


def _gate_defaults(value: object) -> object:
    """The settings with the default action of every gate that they do not name."""
    if not isinstance(value, dict):
        return value
    return {name: find_plugin("gates", name, Gate).default for name in plugin_names("gates")} | value


class GateSettings(Knobs):
    """What each gate does when it notices something: drop, tag or repair; null switches it off.

    The other keys are names of `cai/gates/`, or `pkg.module:ATTR` for a gate of another package. Instead of an action,
    `{action: drop, ...}` also sets the gate's own options.
    """

    model_config = ConfigDict(extra="allow")

    max_length: Annotated[int, Field(ge=16)] = 1024
    """Words that a trainer will keep of prompt and answer, for `truncated_equal`; exact in `cai export --check`."""
    max_ratio: Annotated[float, Field(gt=1)] = 5.0
    """Chosen against rejected in words, either way, for `length_ratio`."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: object) -> object:
        return _gate_defaults(value)

    @model_validator(mode="after")
    def _known(self) -> GateSettings:
        known = plugin_names("gates")
        for name, value in (self.model_extra or {}).items():
            if name not in known and not is_outside(name):
                raise ValueError(f"there is no gate {name!r}; {suggest(name, known)}")
            action = value.get("action") if isinstance(value, dict) else value
            if action not in (None, "drop", "tag", "repair"):
                raise ValueError(f"{name}: use drop, tag, repair or null, not {action!r}")
            if action == "repair" and name in known and find_plugin("gates", name, Gate).repair is None:
                raise ValueError(f"{name} cannot be repaired; use drop or tag")
        return self

    @property
    def names(self) -> list[str]:
        """All gates that have an action or are switched off."""
        return list(self.model_extra or {})

    def action(self, name: str) -> Action | None:
        """What the gate does; None: it is switched off."""
        value = (self.model_extra or {}).get(name)
        return cast("Action | None", value.get("action", "tag") if isinstance(value, dict) else value)

    def options(self, name: str, kind: type[BaseModel]) -> dict[str, object]:
        """What the options of the gate are made from."""
        value = (self.model_extra or {}).get(name)
        given = {key: one for key, one in value.items() if key != "action"} if isinstance(value, dict) else {}
        shared = {"max_length": self.max_length, "max_ratio": self.max_ratio}
        return {key: one for key, one in shared.items() if key in kind.model_fields} | given


class ExportSettings(Knobs):
    """Which formats to write, and how prompts are split."""

    formats: tuple[str, ...] = ("trl", "sft", "kto", "jsonl")
    test_share: Share = 0.1
    """Share of prompts kept out of `train`, by prompt, so that no conversation is in both."""

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for name in formats:
            if ":" not in name and name not in plugin_names("export"):
                raise ValueError(f"there is no format {name!r}; {suggest(name, plugin_names('export'))}")
        return formats


def _probes(value: object) -> object:
    names = plugin_names("audit") if value == "all" else value
    if not isinstance(names, list):
        return names
    if not all(isinstance(name, str) for name in names):
        raise ValueError("give a list of names, or names with thresholds: `{length: {threshold: 0.7}, phrases: {}}`")
    return {name: {} for name in names}


def _checks(value: object) -> object:
    return list(plugin_names("checks")) if value == "all" else value


def _trainings(value: object) -> object:
    if isinstance(value, str | dict):
        raise ValueError("give a list: [{method: dpo}]")
    return value


def _source(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _templates(value: object) -> object:
    return dict.fromkeys(STAGES, value) if isinstance(value, str) else value


class TrainingSettings(Knobs):
    """One training after the run, with the options of its method."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    method: str
    """A file in `cai/train/`: sft, reward, dpo, kto, orpo, ppo, rloo, grpo."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """Of its folder under `train/`; the method's, where not given."""
    start: str = Field("writer", alias="from")
    """What it starts from: the writer, a training before it by name, or any model."""

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.name or self.method.replace(":", ".")

    @property
    def options(self) -> JsonObject:
        """What the method's Options are made from."""
        return dict(self.model_extra or {})


class Recipe(Knobs):
    """One run."""

    constitution: str
    """A path, or a shipped name: default, concise."""
    prompts: Annotated[PromptSource, BeforeValidator(_source)]
    writer: ModelChoice
    """The model that drafts and revises."""
    critic: ModelChoice | None = None
    """The model that critiques; the writer, where not given."""
    templates: Annotated[dict[str, str], BeforeValidator(_templates)]
    """A set of templates (`small`, `large`), or one name or path per stage."""
    seed: int = 0
    draft: DraftSettings = DraftSettings()
    critique: CritiqueSettings = CritiqueSettings()
    revise: ReviseSettings = ReviseSettings()
    gates: GateSettings = GateSettings()
    sample: SampleSettings | None = None
    """With it, prompts are answered several times and the answers compared; nothing is critiqued or revised."""
    pairs: PairSettings = PairSettings()
    judge: Annotated[JudgeSettings | None, BeforeValidator(_judging)] = None
    """Labels pairs by AI feedback: those of samples, or of drafts and revisions."""
    export: ExportSettings = ExportSettings()
    audit: Annotated[dict[str, dict[str, Any]] | None, BeforeValidator(_probes)] = None
    """Probes that look at the pairs, `all` or some, with their thresholds: `length: {threshold: 0.7}`."""
    checks: Annotated[tuple[str, ...] | None, BeforeValidator(_checks)] = None
    """Checks of `cai check` that look at the pairs: `all`, names in `cai/checks/`, or `pkg.module:CHECK`."""
    train: Annotated[tuple[TrainingSettings, ...], BeforeValidator(_trainings)] = ()
    """Trainings on the run's rows, in order; the last policy is compared with the writer on prompts kept out."""
    max_failure_share: Share = 0.05
    """Above this share of failed calls the run ends with exit 3; what it made is kept all the same."""

    @field_validator("templates")
    @classmethod
    def _one_per_stage(cls, templates: dict[str, str]) -> dict[str, str]:
        if set(templates) != set(STAGES):
            raise ValueError(f"name a set, or a template for each of {', '.join(STAGES)}")
        return templates

    @model_validator(mode="after")
    def _samples_are_judged_by_somebody(self) -> Recipe:
        if self.sample and not self.judge:
            raise ValueError("sample without a judge makes no pairs; add judge: logprob")
        return self


def load_recipe(path: Path | str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe in a file, or a shipped one by name, with `a.b=c` overrides. Raises Mistake."""
    return parse_options(_overridden(read_yaml(locate_recipe(path)), overrides), Recipe)


def judge_recipe(method: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The plainest recipe with this judge, to measure it by: the embedded model and the default constitution."""
    data = {
        "constitution": "default",
        "prompts": "everyday",
        "writer": {"backend": "transformers"},
        "templates": "small",
        "judge": method,
    }
    return parse_options(_overridden(Document(f"judge {method}", data, None), overrides), Recipe)


def locate_recipe(path: Path | str) -> Path:
    """The file that `path` means: itself, or the shipped recipe of that name. Raises Mistake."""
    for candidate in (Path(path), Path("runs") / f"{path}.yaml", shipped("runs", f"{path}.yaml")):
        if candidate.is_file():
            return candidate
    names = sorted(file.stem for file in shipped("runs").glob("*.yaml"))
    raise Mistake(str(path), "there is no such recipe", f"give a YAML file, or one of: {', '.join(names)}")


def _overridden(document: Document, overrides: tuple[str, ...]) -> Document:
    data = dict(document.data)
    for key, whole in (("prompts", _source), ("templates", _templates), ("judge", _judging)):
        if key in data:
            data[key] = whole(data[key])  # so that -o prompts.limit=3 finds the short form written out
    return Document(document.where, overridden(data, overrides, "critique.rounds=4"), document.marked)
