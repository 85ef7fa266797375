"""Refuses a state machine definition that the interpreter would not run as Step Functions does."""

from collections.abc import Iterator

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.embedded.states.expressions import expression_text, is_expression, syntax_problem
from rehearsal.embedded.supported import SUPPORTED

_ASL = as_object(SUPPORTED["asl"], "asl")
_REFUSED = as_object(_ASL["refused"], "asl/refused")


class UnsupportedDefinitionError(ValueError):
    """The definition uses what the rehearsal cannot run faithfully, or AWS would refuse it; the message lists all."""


def check_definition(definition: JsonObject) -> None:
    """Raise UnsupportedDefinitionError listing every problem with its place in the definition."""
    problems = list(_machine_problems(definition))
    if problems:
        raise UnsupportedDefinitionError("\n".join(problems))


def _machine_problems(definition: JsonObject) -> Iterator[str]:
    yield from _unknown("machine", "the definition", definition)
    if definition.get("QueryLanguage") != "JSONata":
        yield "the definition: QueryLanguage must be JSONata; the rehearsal runs no JSONPath"
    yield from _flow_problems("", definition)


def _flow_problems(place: str, flow: JsonObject) -> Iterator[str]:
    states = as_object(flow.get("States", {}), "States")
    if flow.get("StartAt") not in states:
        yield f"{place or 'the definition'}: StartAt names no state: {flow.get('StartAt')!r}"
    for name, item in states.items():
        state = as_object(item, name)
        kind = str(state.get("Type"))
        where = f"{place}{name}"
        if kind not in as_object(_ASL["states"], "asl/states"):
            yield f"{where}: {_reason(kind, 'state type')}"
            continue
        yield from _state_problems(where, kind, state, states)
        if kind == "Map":
            yield from _processor_problems(f"{where}/", as_object(state["ItemProcessor"], where))


def _state_problems(where: str, kind: str, state: JsonObject, states: JsonObject) -> Iterator[str]:
    yield from _unknown(f"states/{kind}", where, state)
    ends = kind in ("Succeed", "Fail")
    if kind != "Choice" and not ends and ("Next" in state) == (state.get("End") is True):
        yield f"{where}: exactly one of Next and End is needed"
    targets = [state.get("Next"), state.get("Default")]
    for field in ("Choices", "Retry", "Catch"):
        for item in as_list(state.get(field, []), where):
            rule = as_object(item, where)
            yield from _unknown(field, f"{where}/{field}", rule)
            targets.append(rule.get("Next"))
    for target in targets:
        if target is not None and target not in states:
            yield f"{where}: there is no state {target!r} to go to"
    if kind == "Task" and state.get("Resource") not in as_list(_ASL["resources"], "asl/resources"):
        yield f"{where}: {_reason(str(state.get('Resource')), 'integration')}"
    yield from _expression_problems(where, {key: item for key, item in state.items() if key != "ItemProcessor"})


def _processor_problems(place: str, processor: JsonObject) -> Iterator[str]:
    yield from _unknown("ItemProcessor", place, processor)
    configuration = as_object(processor.get("ProcessorConfig", {}), place)
    if (configuration.get("Mode"), configuration.get("ExecutionType")) != ("DISTRIBUTED", "STANDARD"):
        yield f"{place}ProcessorConfig: only Mode DISTRIBUTED with ExecutionType STANDARD is supported"
    yield from _flow_problems(place, processor)


def _expression_problems(where: str, value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _expression_problems(f"{where}/{key}", item)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _expression_problems(f"{where}[{at}]", item)
    elif is_expression(value):
        if problem := syntax_problem(value):
            yield f"{where}: {problem}: {value}"
        for name in as_list(_ASL["refusedFunctions"], "asl/refusedFunctions"):
            if f"{name}(" in expression_text(value):
                yield f"{where}: {_reason(str(name), 'function')}"


def _unknown(table: str, where: str, found: JsonObject) -> Iterator[str]:
    fields: Json = _ASL
    for key in table.split("/"):
        fields = as_object(fields, table)[key]
    for field in found:
        if field not in as_list(fields, table):
            yield f"{where}: {_reason(field, 'field')}"


def _reason(name: str, what: str) -> str:
    return f"{what} {name} is not supported by the rehearsal: {_REFUSED.get(name, 'it has not been built and tested')}"
