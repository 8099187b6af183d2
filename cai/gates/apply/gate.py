"""Applies the gates of a recipe: each looks at a text and names what it noticed; the recipe says what happens then.

A dropped revision leaves the previous answer in place, and a dropped pair becomes a failure with its reason. Drafts are
only tagged: a faulty draft is what the method is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from cai.core.config import Document, Knobs, parse_options
from cai.core.errors import Mistake
from cai.core.plugin_types import Gate, GateInput
from cai.core.plugins import NotLoaded, find_plugin
from cai.core.types import Action, Finish, GateHit, Prompt
from cai.runs.recipe import GateSettings


@dataclass(frozen=True, slots=True)
class OpenGate:
    """A gate with its options, and what happens when it notices something."""

    name: str
    action: Action
    look: Callable[[GateInput], str | None]
    repair: Callable[[GateInput], tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class OpenGates:
    """The gates of a recipe that are switched on, in their order."""

    drafts: tuple[OpenGate, ...] = ()
    revisions: tuple[OpenGate, ...] = ()
    pairs: tuple[OpenGate, ...] = ()

    def draft(self, text: str, finish: Finish, prompt: Prompt) -> tuple[GateHit, ...]:
        """What is noticed about a draft; tags only."""
        seen = GateInput(prompt.messages[-1].content, text, finish, prompt)
        return tuple(GateHit(gate.name, "tag", saw) for gate in self.drafts if (saw := gate.look(seen)))

    def revision(
        self, text: str, before: str, finish: Finish, prompt: Prompt
    ) -> tuple[str | None, tuple[GateHit, ...]]:
        """The revision as it may pass (repaired, or None when dropped), and what was noticed."""
        hits: list[GateHit] = []
        for gate in self.revisions:
            if gate.action == "repair" and gate.repair:
                text, removed = gate.repair(GateInput(before, text, finish, prompt))
                hits += [GateHit(gate.name, "repair", removed)] if removed else []
        seen = GateInput(before, text, finish, prompt)
        for gate in self.revisions:
            if gate.action != "repair" and (saw := gate.look(seen)):
                hits.append(GateHit(gate.name, gate.action, saw))
        dropped = any(hit.action == "drop" for hit in hits)
        return None if dropped else text, tuple(hits)

    def pair(self, chosen: str, rejected: str, prompt: Prompt) -> tuple[GateHit, ...]:
        """What is noticed about a pair; the caller drops it if any hit says so."""
        seen = GateInput(rejected, chosen, "stop", prompt)
        return tuple(GateHit(gate.name, gate.action, saw) for gate in self.pairs if (saw := gate.look(seen)))


def open_gates(settings: GateSettings) -> OpenGates:
    """The gates that a recipe switches on, with their options. Raises Mistake. Code that is not loaded is left out."""
    records = [(name, *found) for name in settings.names if (found := _record(settings, name))]
    records.sort(key=lambda one: (one[1].order, one[0]))
    opened = [(record.on, _opened(name, record, action, settings)) for name, record, action in records]

    def of(stage: str) -> tuple[OpenGate, ...]:
        return tuple(gate for on, gate in opened if stage in on)

    return OpenGates(of("draft"), of("revision"), of("pair"))


def _record(settings: GateSettings, name: str) -> tuple[Gate, Action] | None:
    action = settings.action(name)
    if action is None:
        return None
    try:
        return find_plugin("gates", name, Gate), action
    except NotLoaded:
        return None


def _opened(name: str, record: Gate, action: Action, settings: GateSettings) -> OpenGate:
    if action == "repair" and record.repair is None:
        raise Mistake(f"gates: {name}", "cannot be repaired", "use drop or tag")
    if record.options is None:
        return OpenGate(name, action, record.look, record.repair)
    document = Document(f"recipe: gates {name}", settings.options(name, record.options), None)
    options: Knobs = parse_options(document, record.options)
    return OpenGate(name, action, partial(_with_options, record.look, options), record.repair)


def _with_options(look: Callable[..., str | None], options: object, seen: GateInput) -> str | None:
    return look(seen, options)


def count_hits(hits: Iterable[GateHit], counts: dict[str, Counter[str]]) -> None:
    """Add `hits` to the manifest's gate -> action -> count."""
    for hit in hits:
        counts.setdefault(hit.gate, Counter())[hit.action] += 1
