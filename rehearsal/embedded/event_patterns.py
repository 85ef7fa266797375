"""EventBridge's patterns and target inputs."""

import json
import re
from collections.abc import Callable, Iterator

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.embedded.policies import wildcard_pattern

_EVENT_MARKS = ("<aws.events.event.json>", "<aws.events.event>")


def matches(pattern: JsonObject, event: JsonObject) -> bool:
    """Return whether `event` matches: every field of the pattern does, by any of its listed values."""
    for name, expected in pattern.items():
        if name == "$or":
            if not any(matches(as_object(choice, name), event) for choice in as_list(expected, name)):
                return False
            continue
        found = event.get(name)
        if isinstance(expected, dict):
            if not matches(expected, found if isinstance(found, dict) else {}):
                return False
        elif not _any_matches(as_list(expected, name), found, present=name in event):
            return False
    return True


def pattern_problems(pattern: JsonObject) -> Iterator[str]:
    """Yield the matchers in a pattern that are not known here."""
    for name, expected in pattern.items():
        if isinstance(expected, dict):
            yield from pattern_problems(expected)
        elif name == "$or":
            for choice in as_list(expected, name):
                yield from pattern_problems(as_object(choice, name))
        else:
            for item in as_list(expected, name):
                if isinstance(item, dict) and next(iter(item)) not in (*_MATCHERS, "exists", "anything-but"):
                    yield f"event pattern matcher {next(iter(item))}"


def _any_matches(expected: list[Json], found: Json, *, present: bool) -> bool:
    values = found if isinstance(found, list) else [found]
    for item in expected:
        if isinstance(item, dict) and "exists" in item:
            if item["exists"] is present:
                return True
        elif present and any(_matches(item, value) for value in values):
            return True
    return False


def _matches(expected: Json, value: Json) -> bool:
    if not isinstance(expected, dict):
        return expected == value and isinstance(expected, bool) is isinstance(value, bool)
    matcher, argument = next(iter(expected.items()))
    if matcher == "anything-but":
        return not any(_matches(item, value) for item in (argument if isinstance(argument, list) else [argument]))
    arguments = argument if isinstance(argument, list) and matcher != "numeric" else [argument]
    return any(_MATCHERS[matcher](item, value) for item in arguments)


def _numeric(argument: Json, value: Json) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    parts = as_list(argument, "numeric")
    compare: dict[str, Callable[[float, float], bool]] = {
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        "=": lambda a, b: a == b,
        ">=": lambda a, b: a >= b,
        ">": lambda a, b: a > b,
    }
    return all(compare[str(parts[at])](value, float(str(parts[at + 1]))) for at in range(0, len(parts), 2))


_MATCHERS: dict[str, Callable[[Json, Json], bool]] = {
    "prefix": lambda argument, value: isinstance(value, str) and value.startswith(str(argument)),
    "suffix": lambda argument, value: isinstance(value, str) and value.endswith(str(argument)),
    "wildcard": lambda argument, value: (
        isinstance(value, str) and wildcard_pattern(str(argument), "*").fullmatch(value) is not None
    ),
    "equals-ignore-case": lambda argument, value: isinstance(value, str) and value.lower() == str(argument).lower(),
    "numeric": _numeric,
}


def target_input(settings: JsonObject, event: JsonObject) -> Json:
    """Return what a target gets: its Input, the part at InputPath, the filled InputTransformer, or the event."""
    if "Input" in settings:
        constant: Json = json.loads(str(settings["Input"]))
        return constant
    if "InputPath" in settings:
        return _at(event, str(settings["InputPath"]))
    if "InputTransformer" in settings:
        return _transformed(as_object(settings["InputTransformer"], "InputTransformer"), event)
    return event


def _transformed(transformer: JsonObject, event: JsonObject) -> Json:
    paths = as_object(transformer.get("InputPathsMap", {}), "InputPathsMap")
    text = str(transformer["InputTemplate"])
    for mark in _EVENT_MARKS:
        text = text.replace(mark, json.dumps(event))
    for name, path in paths.items():
        value = _at(event, str(path))
        inside = value if isinstance(value, str) else json.dumps(value)
        # Between quotes a text is inserted as it is, elsewhere as JSON.
        escaped = json.dumps(inside)[1:-1].replace("\\", "\\\\")
        text = re.sub(rf'(?<=")<{re.escape(name)}>(?=")', escaped, text)
        text = text.replace(f"<{name}>", json.dumps(value))
    filled: Json = json.loads(text)
    return filled


def _at(event: JsonObject, path: str) -> Json:
    value: Json = event
    for part in path.removeprefix("$").strip(".").split("."):
        if part:
            value = as_object(value, path).get(part)
    return value
