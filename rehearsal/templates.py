"""Reads what a synthesis has written: the templates of an assembly, and the state machine in one of them."""

import json
from collections.abc import Mapping
from pathlib import Path

from customization.json_types import Json, JsonObject, as_object, as_text


def read(path: Path) -> JsonObject:
    value: Json = json.loads(path.read_bytes())
    return as_object(value, path.name)


def read_templates(assembly: Path) -> dict[str, JsonObject]:
    """Return the templates by the last word of their stack's name in lower case: storage, pipeline, operations."""
    return {path.name.split(".")[0].rpartition("-")[2].lower(): read(path) for path in assembly.glob("*.template.json")}


def resources(template: JsonObject, kind: str | None = None) -> dict[str, JsonObject]:
    """Return the resources of type `kind`, or all of them, by logical id."""
    found = {name: as_object(value, name) for name, value in as_object(template["Resources"], "Resources").items()}
    return {name: value for name, value in found.items() if kind in (None, value["Type"])}


def at(value: Json, *path: str | int) -> Json:
    """Return what lies at `path`; raises KeyError or IndexError when nothing does."""
    for step in path:
        match value, step:
            case dict(), str():
                value = value[step]
            case list(), int():
                value = value[step]
            case _:
                raise KeyError(f"{step} in {value}")
    return value


def listed(value: Json) -> list[Json]:
    """Return `value` as a list: policies write a single action or resource without one."""
    return value if isinstance(value, list) else [value]


def function_modules(pipeline: JsonObject) -> dict[str, str]:
    """Return the module of each function's handler by the function's logical id."""
    return {
        name: as_text(at(function, "Properties", "Handler"), name).split(".")[-2]
        for name, function in resources(pipeline, "AWS::Lambda::Function").items()
    }


def definition(pipeline: JsonObject) -> JsonObject:
    """Return the machine's definition; a function is named by its handler's module, anything else by its logical id."""
    modules = function_modules(pipeline)
    versions = {
        name: modules[as_text(at(version, "Properties", "FunctionName", "Ref"), name)]
        for name, version in resources(pipeline, "AWS::Lambda::Version").items()
    }
    (machine,) = resources(pipeline, "AWS::StepFunctions::StateMachine").values()
    parts = listed(at(machine, "Properties", "DefinitionString", "Fn::Join", 1))
    text = "".join(part if isinstance(part, str) else _name(part, versions) for part in parts)
    value: Json = json.loads(text)
    return as_object(value, "definition")


def _name(reference: Json, versions: Mapping[str, str]) -> str:
    name = as_text(at(reference, "Ref"), "Ref")
    return "aws" if name == "AWS::Partition" else versions.get(name, name)


def states(flow: JsonObject) -> dict[str, JsonObject]:
    """Return the states of `flow` by name, without those inside of maps."""
    return {name: as_object(state, name) for name, state in as_object(flow["States"], "States").items()}
