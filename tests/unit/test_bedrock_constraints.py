"""What the rehearsal's Bedrock refuses: the pinned botocore still has the patterns and bounds that AWS published."""

import inspect
import re
from pathlib import Path

import msgspec
import pytest
from botocore import xform_name
from botocore.model import ListShape, Shape, StructureShape

from customization.gateway import bedrock, runtime
from customization.json_types import Json, JsonObject, as_object
from rehearsal.bedrock.protocol import SERVICES, service_model, violations

TABLE = as_object(
    msgspec.json.decode((Path(__file__).parent / "bedrock_constraints.json").read_bytes()), "bedrock_constraints.json"
)
KINDS = ("min", "max", "pattern", "enum")
MEMBERS = [
    pytest.param(service, operation, path, constraints, id=f"{operation}:{path}")
    for service in SERVICES
    for operation, members in as_object(TABLE[service], service).items()
    for path, constraints in as_object(members, operation).items()
]
CALLED = re.compile(r"self\._client\.(?:get_paginator\(\"(\w+)\"\)|(?!get_paginator)(\w+)\()")


def shape_of(service: str, operation: str, path: str) -> Shape:
    shape: Shape | None = service_model(service).operation_model(operation).input_shape
    for name in path.replace("[]", ".[]").split("."):
        if name == "[]":
            assert isinstance(shape, ListShape)
            shape = shape.member
        else:
            assert isinstance(shape, StructureShape)
            shape = shape.members[name]
    assert shape is not None
    return shape


@pytest.mark.parametrize(("service", "operation", "path", "expected"), MEMBERS)
def test_the_service_model_has_the_published_constraints(
    service: str, operation: str, path: str, expected: JsonObject
) -> None:
    known = shape_of(service, operation, path).metadata
    assert {kind: known[kind] for kind in KINDS if kind in known} == expected


def breaking(shape: Shape) -> tuple[Json, str]:
    """Return a value that breaks a constraint of a member, and what it is refused with."""
    limits = shape.metadata
    if "enum" in limits:
        return "é é", "satisfy enum value set"
    if "pattern" in limits:
        return "é é", "satisfy regular expression pattern"
    if shape.type_name in {"integer", "float"}:
        return limits["min"] - 1, "have value greater than or equal to"
    if "max" not in limits:
        return "", "have length greater than or equal to"
    return ["é"] * (limits["max"] + 1) if isinstance(shape, ListShape) else "é" * (
        limits["max"] + 1
    ), "have length less"


@pytest.mark.parametrize(("service", "operation", "path"), [case.values[:3] for case in MEMBERS])
def test_what_breaks_them_is_refused(service: str, operation: str, path: str) -> None:
    shape = shape_of(service, operation, path)
    value, words = breaking(shape)
    assert any(words in told for told in violations(value, shape))


def test_the_table_has_every_operation_that_the_gateway_calls() -> None:
    source = "".join(inspect.getsource(module) for module in (bedrock, runtime))
    called = {first or second for first, second in CALLED.findall(source)}
    listed = {xform_name(name) for service in SERVICES for name in as_object(TABLE[service], service)}
    assert listed == called
