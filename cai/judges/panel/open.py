"""Opens the judges of a recipe, and describes them for the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cai.core import config as outside
from cai.core import plugins
from cai.core.config import Knobs
from cai.core.errors import Mistake
from cai.core.plugin_types import Judge
from cai.core.types import Constitution, Model
from cai.data import pairs as preferences
from cai.judges.panel import gold
from cai.judges.panel.ask import Bench
from cai.judges.panel.panel import Juror, Panel
from cai.runs.folder import Run
from cai.runs.recipe import Choice, Judging, Recipe
from cai.runs.recipe import Juror as JurorChoice
from cai.templates import template as templates


def roles(chosen: Recipe) -> dict[str, Choice]:
    """The models that a recipe's samples and judges need beside the writer and the critic, by role."""
    writers = chosen.sample.writers if chosen.sample else ()
    jurors = chosen.judge.by if chosen.judge else ()
    found = {f"writer-{number}": choice for number, choice in enumerate(writers, 2)}
    critic = chosen.critic or chosen.writer
    return found | {_seat(number): juror.model or critic for number, juror in enumerate(jurors, 1)}


def _seat(number: int) -> str:
    return "judge" if number == 1 else f"judge-{number}"


def panel(chosen: Recipe, constitution: Constitution, models: Mapping[str, Model]) -> Panel | None:
    """The recipe's judges, each with its model, template and options; None where it has none. Raises Mistake."""
    if chosen.judge is None:
        return None
    for file in _gold(chosen.judge):
        gold.check(file)
    seats = ((juror, models[_seat(number)]) for number, juror in enumerate(chosen.judge.by, 1))
    jurors = tuple(_juror(juror, model, chosen, constitution) for juror, model in seats)
    return Panel(jurors, constitution, chosen.judge, chosen.seed)


def _gold(settings: Judging) -> list[Path]:
    """The gold files; a folder stands for those in it, each with a card of its own. Raises Mistake."""
    return [file for path in settings.gold for file in preferences.files(Path(path))]


def _juror(juror: JurorChoice, model: Model, chosen: Recipe, constitution: Constitution) -> Juror:
    record = plugins.find("judges", juror.method, Judge)
    if not any(getattr(principle, record.needs) and principle.weight for principle in constitution.principles):
        fix = f"add `{record.needs}` to its principles, or choose another judge"
        raise Mistake(f"judge {juror.method}", f"no principle of {constitution.name!r} has `{record.needs}`", fix)
    options: Knobs = outside.noun(
        outside.Document(f"recipe: judge {juror.method}", juror.options, None), record.options
    )
    template = templates.load(record.asks, juror.template or chosen.templates["critique"])
    known = model.identity
    return Juror(juror.method, record, Bench(model, template, chosen.seed), options, known.get("model", "unknown"))


async def facts(panel: Panel, where: Run, models: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    """Who judged and how, the card of the run's labels, and a card for each gold file. Raises Mistake."""
    writers = {role: identity.get("model", "") for role, identity in models.items()}
    labels = gold.of_labels(where.pairs(), writers, panel.seed)
    cards = {str(file): await gold.measured(panel, file) for file in _gold(panel.settings)}
    return described(panel) | {"labels": labels, "gold": cards}


def described(panel: Panel) -> dict[str, object]:
    """Who judges and how."""
    judges = [
        {
            "method": juror.method,
            "model": juror.model,
            "template": {"name": _short(juror), "digest": juror.bench.template.digest},
            "options": juror.options.model_dump(mode="json"),
        }
        for juror in panel.jurors
    ]
    return {"by": judges} | panel.settings.model_dump(
        mode="json", include={"combine", "orders", "principles", "examples"}
    )


def _short(juror: Juror) -> str:
    return f"{juror.record.asks}/{Path(juror.bench.template.name).stem}"
