"""The reference of the run request: its JSON Schema, its fields as tables, and the ready inputs as examples."""

import json
from collections.abc import Iterator
from pathlib import Path

from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from customization.request import run_request_schema
from docs.render.pages import table

INPUTS = Path(__file__).parents[2] / "samples" / "inputs"
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "maxLength": "≤ {} characters",
    "minLength": "≥ {} characters",
    "pattern": "pattern `{}`",
}
# cdk.json sets these, so the schema has no default of its own
_FROM_SETTINGS = {"baseModelIdentifier", "budgetUsd", "language"}


def schema_text() -> str:
    """Return the JSON Schema as docs/run-request.schema.json has it."""
    return json.dumps(run_request_schema(), indent=1, ensure_ascii=False) + "\n"


def reference() -> str:
    """Return a table of the request's fields, and one of each object within it."""
    schema = run_request_schema()
    objects = {name: as_object(inner, name) for name, inner in as_object(schema["$defs"], "$defs").items()}
    parts = [_fields(schema, as_list(schema["required"], "required"))]
    for name in (_referred(as_object(field, "field")) for field in as_object(schema["properties"], "all").values()):
        if name:
            part = objects[name]
            parts += [f"### {name.lower()}", as_text(part["description"], name), _fields(part, [])]
    return "\n\n".join(parts)


def _fields(schema: JsonObject, required: list[Json]) -> str:
    rows = []
    for name, field in as_object(schema["properties"], "properties").items():
        described = as_object(field, name)
        kind = "; ".join(dict.fromkeys(_kinds(described)))
        what = as_text(described.get("description", "see below"), name)
        examples = as_list(described.get("examples", []), name)
        shown = ", ".join(f"`{json.dumps(example, ensure_ascii=False)}`" for example in examples)
        rows.append((f"`{name}`", kind, _default(name, described, required), shown, what))
    return table(("field", "takes", "default", "example", "what it does"), rows)


def _referred(field: JsonObject) -> str:
    """Return the name of the object that a field takes, or nothing."""
    options = [field, *(as_object(item, "anyOf") for item in as_list(field.get("anyOf", []), "anyOf"))]
    return next((as_text(o["$ref"], "$ref").rpartition("/")[2] for o in options if "$ref" in o), "")


def _kinds(field: JsonObject) -> Iterator[str]:
    """Yield what a field takes: the types it may have, its values or its bounds."""
    for option in (as_object(item, "anyOf") for item in as_list(field.get("anyOf", []), "anyOf")):
        if option.get("type") != "null":
            yield from _kinds(option)
    if "$ref" in field:
        yield f"[{_referred(field).lower()}](#{_referred(field).lower()})"
    elif "enum" in field:
        yield ", ".join(f"`{value}`" for value in as_list(field["enum"], "enum"))
    elif field.get("type") == "array":
        yield f"array of {', '.join(_kinds(as_object(field['items'], 'items')))}"
    elif field.get("type") == "object":
        inner = as_object(field.get("additionalProperties", {}), "additionalProperties")
        yield f"object of {' or '.join(dict.fromkeys(_kinds(inner)))}"
    elif "type" in field:
        bounds = [text.format(field[key]) for key, text in _BOUNDS.items() if key in field]
        yield ", ".join([as_text(field["type"], "type"), *bounds])


def _default(name: str, field: JsonObject, required: list[Json]) -> str:
    if name in required:
        return "**required**"
    if name in _FROM_SETTINGS:
        return "from cdk.json"
    if field.get("default") is None:
        return "–"  # noqa: RUF001  an en dash: there is none
    return "as below" if _referred(field) else f"`{json.dumps(field['default'], ensure_ascii=False)}`"


def inputs() -> str:
    """Return every ready input of samples/inputs, for the console or run.json."""
    parts = []
    for path in sorted(INPUTS.glob("*.json")):
        parts += [f"`samples/inputs/{path.name}`", f"```json\n{path.read_text().strip()}\n```"]
    return "\n\n".join(parts)
