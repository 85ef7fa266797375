"""Amazon's rest-json protocol for Bedrock and its runtime, driven by botocore's own service models.

The service models carry the patterns, bounds and enumerations that botocore's client does not check: they are
checked here.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias
from urllib.parse import parse_qs, unquote

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator

from customization.json_types import Json, JsonObject
from rehearsal.bedrock.errors import ServiceError, validation

HttpResponse: TypeAlias = tuple[int, dict[str, str], bytes]

SERVICES = ("bedrock", "bedrock-runtime")
# Errors that every AWS service may answer and that an operation need not list.
COMMON_STATUS = {"ThrottlingException": 429, "InternalServerException": 500, "ServiceUnavailableException": 503}


@dataclass(frozen=True)
class Request:
    """A parsed call: the parameters by their names in the service model; `payload` is the body of InvokeModel."""

    operation: OperationModel
    parameters: JsonObject
    payload: bytes = b""


@dataclass(frozen=True)
class Response:
    """What an operation answers: values by their names in the service model; None stands for absent."""

    values: JsonObject = field(default_factory=dict)
    payload: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Route:
    template: str
    pattern: re.Pattern[str]
    operation: OperationModel


@cache
def service_model(service: str) -> ServiceModel:
    """Return botocore's model of `service`."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def _routes() -> dict[str, list[_Route]]:
    routes: dict[str, list[_Route]] = {}
    for service in SERVICES:
        model = service_model(service)
        for name in model.operation_names:
            operation = model.operation_model(name)
            template = str(operation.http["requestUri"])
            # An ARN in a path holds slashes, which arrive encoded or not, depending on the server in front.
            pattern = re.sub(r"\\\{(\w+)(?:\\\+)?\\\}", r"(?P<\1>.+)", re.escape(template))
            routes.setdefault(operation.http["method"], []).append(_Route(template, re.compile(pattern), operation))
    for candidates in routes.values():
        candidates.sort(key=lambda route: len(re.sub(r"\{.*?\}", "", route.template)), reverse=True)
    return routes


def find_operation(method: str, path: str) -> tuple[OperationModel, dict[str, str]] | None:
    """Return the operation that a request line calls with the labels of its path decoded, None when no model has it."""
    for route in _routes().get(method, []):
        match = route.pattern.fullmatch(path)
        if match:
            return route.operation, {name: unquote(text) for name, text in match.groupdict().items()}
    return None


def parse_request(
    operation: OperationModel, labels: Mapping[str, str], query_string: str, headers: Mapping[str, str], body: bytes
) -> Request:
    """Return the parsed and checked request; raises ServiceError (ValidationException)."""
    shape = operation.input_shape
    if not isinstance(shape, StructureShape):
        return Request(operation, {})
    payload_name = shape.serialization.get("payload")
    sources = _Sources(labels, parse_qs(query_string, keep_blank_values=True), headers)
    content = {} if payload_name else _read_json(body)
    parameters: JsonObject = {}
    for name, member in shape.members.items():
        value = sources.read(name, member) if "location" in member.serialization else content.get(name)
        if value is not None:
            parameters[name] = value
    if payload_name and len(body) > shape.members[payload_name].metadata.get("max", len(body)):
        raise validation(f"The request body of {len(body)} bytes is larger than the service takes.")
    _check(parameters, shape)
    return Request(operation, parameters, body if payload_name else b"")


@dataclass(frozen=True)
class _Sources:
    labels: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]

    def read(self, name: str, shape: Shape) -> Json:
        location, key = shape.serialization["location"], str(shape.serialization.get("name", name))
        if location == "uri":
            return self.labels.get(key)
        if location == "querystring":
            texts = self.query.get(key)
            if isinstance(shape, ListShape):
                return None if texts is None else [_scalar(text, shape.member) for text in texts]
            return _scalar(texts[0], shape) if texts else None
        wanted = key.lower()
        return next((text for header, text in self.headers.items() if header.lower() == wanted), None)


def _scalar(text: str, shape: Shape) -> Json:
    if shape.type_name == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if shape.type_name in {"integer", "long"} and re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    return text


def _read_json(body: bytes) -> JsonObject:
    if not body:
        return {}
    try:
        content: Json = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ServiceError("ValidationException", "The request body is not a JSON object.")
    return content


def _check(parameters: JsonObject, shape: StructureShape) -> None:
    problems = ParamValidator().validate(parameters, shape)
    if problems.has_errors():
        raise validation(problems.generate_report())
    broken = list(violations(parameters, shape))
    if broken:
        noun = "error" if len(broken) == 1 else "errors"
        raise validation(f"{len(broken)} validation {noun} detected: {'; '.join(broken)}")


def violations(value: Json, shape: Shape, path: str = "") -> Iterator[str]:
    """Yield, in Bedrock's wording, each constraint of the service model that a value of the right types breaks."""
    if isinstance(value, dict) and isinstance(shape, StructureShape):
        for name, item in value.items():
            if name in shape.members and item is not None:
                yield from violations(item, shape.members[name], f"{path}.{name}" if path else name)
        return
    for constraint in _broken_constraints(value, shape):
        yield f"Value at '{path}' failed to satisfy constraint: Member must {constraint}"
    if isinstance(value, list) and isinstance(shape, ListShape):
        for number, item in enumerate(value, start=1):
            yield from violations(item, shape.member, f"{path}.{number}.member")
    elif isinstance(value, dict) and isinstance(shape, MapShape):
        for key, item in value.items():
            yield from violations(key, shape.key, f"{path}.key")
            yield from violations(item, shape.value, f"{path}.{key}.value")


def _broken_constraints(value: Json, shape: Shape) -> Iterator[str]:
    limits = shape.metadata
    if isinstance(value, str | list | dict):
        if len(value) < limits.get("min", 0):
            yield f"have length greater than or equal to {limits['min']}"
        if len(value) > limits.get("max", len(value)):
            yield f"have length less than or equal to {limits['max']}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < limits.get("min", value):
            yield f"have value greater than or equal to {limits['min']}"
        if value > limits.get("max", value):
            yield f"have value less than or equal to {limits['max']}"
    if not isinstance(value, str):
        return
    if "enum" in limits and value not in limits["enum"]:
        yield f"satisfy enum value set: [{', '.join(limits['enum'])}]"
    if "pattern" in limits and len(value) <= limits.get("max", len(value)) and not _pattern(shape).fullmatch(value):
        yield f"satisfy regular expression pattern: {limits['pattern']}"


def _pattern(shape: Shape) -> re.Pattern[str]:
    # As published, this part matches a run of hyphens in exponentially many ways; without the inner star it accepts
    # the same texts.
    published = str(shape.metadata["pattern"])
    return re.compile(published.replace(r"(-*[a-zA-Z0-9\+\-\.])*", r"[a-zA-Z0-9\+\-\.]*"))


def serialize(operation: OperationModel, response: Response) -> HttpResponse:
    """Return the HTTP response for what an operation answered; raises LookupError for a value it cannot have."""
    headers = {"Content-Type": "application/json", **response.headers}
    shape = operation.output_shape
    members = shape.members if isinstance(shape, StructureShape) else {}
    unknown = response.values.keys() - members.keys()
    if unknown:
        raise LookupError(f"{operation.name} answers no {', '.join(sorted(unknown))}")
    status = int(operation.http.get("responseCode", 200))
    if shape is not None and "payload" in shape.serialization:
        return status, headers, response.payload
    content = {name: present(value) for name, value in response.values.items() if value is not None}
    return status, headers, json.dumps(content).encode()


def present(value: Json) -> Json:
    """Return `value` without the members of objects that are None."""
    if isinstance(value, dict):
        return {name: present(item) for name, item in value.items() if item is not None}
    return [present(item) for item in value] if isinstance(value, list) else value


def error_response(operation: OperationModel | None, error: ServiceError) -> HttpResponse:
    """Return the HTTP response for an error; raises LookupError for one that the operation does not model."""
    statuses = (
        {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in operation.error_shapes} if operation else {}
    )
    status = statuses.get(error.code) or COMMON_STATUS.get(error.code)
    if status is None:
        raise LookupError(f"{operation.name if operation else 'this call'} answers no {error.code}: {error.message}")
    return http_error(int(status), error.code, error.message)


def http_error(status: int, code: str, message: str) -> HttpResponse:
    """Return an error in the form of the rest-json protocol."""
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    return status, headers, json.dumps({"message": message}).encode()
