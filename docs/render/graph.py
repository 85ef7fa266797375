"""The state machine of the synthesized template as diagrams that GitHub draws, one a section, each with its table."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from customization.json_types import Json, JsonObject, as_int, as_object, as_text
from docs.render.pages import table
from rehearsal.templates import definition, listed, states

# Where a section begins; whatever is reached from there without beginning another section belongs to it
SECTIONS = {
    "A start is understood": ("InitializeRun",),
    "The run is checked, prepared and estimated": ("CheckPreconditions",),
    "The models before it are asked": ("IsBaselineNeeded",),
    "The custom model is trained": ("CreateCustomizationJob",),
    "The custom model is served": ("IsServingNeeded",),
    "The models are compared, and the result is told": ("EvaluateCustomModel", "CompareModels"),
    "Another model is put in use": ("ChangeModelInUse",),
    "A failure is recorded, released and told": ("UnexpectedStatus",),
}
# Every Task and Map leads its errors to the one, every Choice without a branch to the other: said once, not drawn
_FAILURE, _NO_BRANCH = "RecordFailure", "UnexpectedStatus"
_SHAPES = {
    "Task": '["{}"]',
    "Map": '[["{}"]]',
    "Choice": '{{{{"{}"}}}}',
    "Wait": '[/"{}"/]',
    "Pass": '["{}"]',
    "Succeed": '(["{}"])',
    "Fail": '(["{}"])',
}
_CLASSES = {"Succeed": "good", "Fail": "bad", "Wait": "wait", "Choice": "choice", "Elsewhere": "elsewhere"}
# Mid-tone strokes are seen on the light and on the dark page alike
_STYLES = (
    "classDef good stroke:#2da44e,stroke-width:2px",
    "classDef bad stroke:#cf222e,stroke-width:2px",
    "classDef wait stroke-dasharray:4 3",
    "classDef choice stroke:#bf8700,stroke-width:2px",
    "classDef elsewhere fill:none,stroke-dasharray:2 2",
)
_PLAIN = re.compile(r"\$\w+ = '([^']+)'")


@dataclass(frozen=True)
class Edge:
    source: str
    target: str
    label: str = ""
    is_catch: bool = False

    @property
    def is_said_once(self) -> bool:
        return self.target == _NO_BRANCH or (self.is_catch and self.target == _FAILURE)


def edges(name: str, state: JsonObject) -> Iterator[Edge]:
    """Yield every way out of a state; the label is the condition, or nothing where there is no choice."""
    for rule in listed(state.get("Choices", [])):
        fields = as_object(rule, name)
        yield Edge(name, as_text(fields["Next"], "Next"), _condition(fields["Condition"]))
    if "Default" in state:
        yield Edge(name, as_text(state["Default"], "Default"), "otherwise")
    if "Next" in state:
        yield Edge(name, as_text(state["Next"], "Next"))
    for rule in listed(state.get("Catch", [])):
        yield Edge(name, as_text(as_object(rule, name)["Next"], "Next"), "on error", is_catch=True)


def _condition(jsonata: Json) -> str:
    text = as_text(jsonata, "Condition").removeprefix("{%").removesuffix("%}").strip()
    plain = _PLAIN.fullmatch(text)
    return plain[1] if plain else text


class Machine:
    """The definition, cut into sections."""

    def __init__(self, pipeline: JsonObject) -> None:
        self.definition = definition(pipeline)
        self.states = states(self.definition)
        self.edges = [edge for name, state in self.states.items() for edge in edges(name, state)]
        self.section_of: dict[str, str] = {}
        self._entries = {entry for entries in SECTIONS.values() for entry in entries}
        for section, entries in SECTIONS.items():
            for entry in entries:
                self._claim(entry, section)

    def _claim(self, name: str, section: str) -> None:
        if name in self.section_of:
            return
        self.section_of[name] = section
        for edge in self.edges:
            if edge.source == name and not edge.is_said_once and edge.target not in self._entries:
                self._claim(edge.target, section)

    def members(self, section: str) -> list[str]:
        """Return the states of a section in the order in which they are reached."""
        return [name for name, own in self.section_of.items() if own == section]

    def overview(self) -> str:
        """Return the sections and how one leads to another."""
        ids = {section: f"s{number}" for number, section in enumerate(SECTIONS, 1)}
        lines = [f'{ids[section]}["{number}. {section}"]' for number, section in enumerate(SECTIONS, 1)]
        failure = self.section_of[_FAILURE]
        ends = [name for name, state in self.states.items() if state["Type"] in {"Succeed", "Fail"}]
        lines += [self._node(name) for name in ends]
        lines += ['errors["an error, in any section"]:::elsewhere', f"errors -.-> {ids[failure]}"]
        crossings = [(source, target) for source, target in self._crossings() if target != failure]
        lines += [f"{ids[source]} --> {ids[target]}" for source, target in dict.fromkeys(crossings)]
        lines += [f"{ids[self.section_of[name]]} --> {name}" for name in ends]
        return _flowchart("TD", lines)

    def _crossings(self) -> Iterator[tuple[str, str]]:
        for edge in self.edges:
            source, target = self.section_of[edge.source], self.section_of[edge.target]
            if source != target:
                yield source, target

    def diagram(self, section: str) -> str:
        """Return the states of a section; those of other sections are dashed."""
        own = self.members(section)
        ways = {(edge.source, edge.target) for edge in self.edges if not edge.is_catch}
        drawn = [
            edge
            for edge in self.edges
            if edge.source in own and not edge.is_said_once
            if not (edge.is_catch and (edge.source, edge.target) in ways)
        ]
        lines = [self._node(name) for name in own]
        lines += [self._elsewhere(name) for name in dict.fromkeys(e.target for e in drawn if e.target not in own)]
        for edge in drawn:
            label = f'|"{edge.label}"|' if edge.label else ""
            lines.append(f"{edge.source} {'-.->' if edge.is_catch else '-->'}{label} {edge.target}")
        return _flowchart("TD", lines)

    def _node(self, name: str) -> str:
        kind = as_text(self.states[name]["Type"], name)
        style = f":::{_CLASSES[kind]}" if kind in _CLASSES else ""
        return f"{name}{_SHAPES[kind].format(name)}{style}"

    def _elsewhere(self, name: str) -> str:
        number = list(SECTIONS).index(self.section_of[name]) + 1
        return f'{name}["{name}<br/>section {number}"]:::elsewhere'

    def table(self, section: str) -> str:
        """Return what each state of a section does, which handler it calls and how long it may take."""
        rows = []
        for name in self.members(section):
            rows.append(_row(name, self.states[name]))
            if self.states[name]["Type"] == "Map":
                inner = states(as_object(self.states[name]["ItemProcessor"], "ItemProcessor"))
                rows += [_row(child, state) for child, state in inner.items()]
        return table(("state", "kind", "what it does", "handler", "timeout"), rows)

    def sections(self) -> str:
        parts = []
        for number, section in enumerate(SECTIONS, 1):
            parts += [f"### {number}. {section}", self.diagram(section), self.table(section)]
        return "\n\n".join(parts)

    def unusual_catches(self) -> str:
        """Return the states whose errors do not lead to RecordFailure, and where they lead instead."""
        rows = [(f"`{e.source}`", f"`{e.target}`") for e in self.edges if e.is_catch and e.target != _FAILURE]
        return table(("an error in", "leads to"), rows)


def _row(name: str, state: JsonObject) -> tuple[str, ...]:
    handler = _handler(state)
    link = f"[{handler}](../lambda/customization/handlers/{handler}.py)" if handler else ""
    seconds = state.get("TimeoutSeconds")
    timeout = str(timedelta(seconds=as_int(seconds, name))) if seconds is not None else ""
    return f"`{name}`", as_text(state["Type"], name), as_text(state["Comment"], name), link, timeout


def _handler(state: JsonObject) -> str:
    arguments: Mapping[str, Json] = as_object(state.get("Arguments", {}), "Arguments")
    return as_text(arguments.get("FunctionName", ""), "FunctionName")


def _flowchart(direction: str, lines: list[str]) -> str:
    body = "\n".join(f"  {line}" for line in (*lines, *_STYLES))
    return f"```mermaid\nflowchart {direction}\n{body}\n```"
