"""Opens the judges of a recipe, and describes them for the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cai.core.config import Document, Knobs, parse_options
from cai.core.errors import Mistake
from cai.core.plugin_types import Judge
from cai.core.plugins import NotLoaded, find_plugin
from cai.core.types import Constitution, Model
from cai.data.pairs import data_files
from cai.judges.panel.ask import JudgeContext, load_judge_template
from cai.judges.panel.gold import check_gold, label_figures, measure_judge
from cai.judges.panel.panel import Juror, Panel
from cai.runs.folder import Run
from cai.runs.judge_card import JudgeDescription, JudgeSummary, TemplateName
from cai.runs.recipe import JudgeSettings, JurorSettings, ModelChoice, Recipe


def extra_roles(recipe: Recipe) -> dict[str, ModelChoice]:
    """The models that a recipe's samples and judges need beside the writer and the critic, by role."""
    writers = recipe.sample.writers if recipe.sample else ()
    jurors = recipe.judge.by if recipe.judge else ()
    found = {f"writer-{number}": choice for number, choice in enumerate(writers, 2)}
    critic = recipe.critic or recipe.writer
    return found | {_role(number): juror.model or critic for number, juror in enumerate(jurors, 1)}


def _role(number: int) -> str:
    return "judge" if number == 1 else f"judge-{number}"


def open_panel(recipe: Recipe, constitution: Constitution, models: Mapping[str, Model], secret: bytes) -> Panel | None:
    """The recipe's judges, each with its model, template and options; fence ids are made with `secret`. Raises Mistake.

    None where the recipe has no judge, or one whose code is not loaded.
    """
    if recipe.judge is None:
        return None
    for file in _gold(recipe.judge):
        check_gold(file)
    opened = ((juror, models[_role(number)]) for number, juror in enumerate(recipe.judge.by, 1))
    try:
        jurors = tuple(_juror(juror, model, recipe, constitution, secret) for juror, model in opened)
    except NotLoaded:
        return None
    return Panel(jurors, constitution, recipe.judge, recipe.seed)


def _gold(settings: JudgeSettings) -> list[Path]:
    """The gold files; a folder stands for those in it, each with figures of its own. Raises Mistake."""
    return [file for path in settings.gold for file in data_files(Path(path))]


def _juror(juror: JurorSettings, model: Model, recipe: Recipe, constitution: Constitution, secret: bytes) -> Juror:
    record = find_plugin("judges", juror.method, Judge)
    if not any(getattr(principle, record.needs) and principle.weight for principle in constitution.principles):
        fix = f"add `{record.needs}` to its principles, or choose another judge"
        raise Mistake(f"judge {juror.method}", f"no principle of {constitution.name!r} has `{record.needs}`", fix)
    options: Knobs = parse_options(Document(f"recipe: judge {juror.method}", juror.options, None), record.options)
    name = juror.template or _template_set(recipe)
    context = JudgeContext(model, load_judge_template(record, name), recipe.seed, secret)
    return Juror(juror.method, record, context, options, model.identity.get("model", "unknown"))


def _template_set(recipe: Recipe) -> str:
    """The set of templates that a judge uses where the recipe names none: the first set that a stage uses, else large.

    A path is a template of one stage, and a judge cannot use it.
    """
    used = (recipe.templates[stage] for stage in ("critique", "revise", "draft"))
    return next((name for name in used if not name.endswith(".j2") and "/" not in name), "large")


async def judge_summary(panel: Panel, run: Run, models: Mapping[str, Mapping[str, str]]) -> JudgeSummary:
    """Who judged and how, the figures of the run's labels, and those of each gold file. Raises Mistake."""
    writers = {role: identity.get("model", "") for role, identity in models.items()}
    labels = label_figures(run.pairs(), writers, panel.seed)
    figures = {str(file): await measure_judge(panel, file) for file in _gold(panel.settings)}
    return replace(describe_judges(panel), labels=labels, gold=figures)


def describe_judges(panel: Panel) -> JudgeSummary:
    """Who judges and how."""
    settings = panel.settings
    return JudgeSummary(
        by=tuple(map(_description, panel.jurors)),
        combine=settings.combine,
        orders=settings.orders,
        principles=settings.principles,
        examples=settings.examples,
    )


def _description(juror: Juror) -> JudgeDescription:
    template = juror.context.template
    name = TemplateName(f"{juror.record.asks}/{Path(template.name).stem}", template.digest)
    return JudgeDescription(juror.method, juror.model, name, juror.options.model_dump(mode="json"))
