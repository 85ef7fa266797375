"""Which permissions a call needs, told from the request; the services that the functions call, and no others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.embedded.policies import Demand
from rehearsal.embedded.requests import HttpRequest

_S3_BUCKET_ACTIONS = {  # by method and the query parameter that names the sub-resource
    ("GET", "uploads"): "s3:ListBucketMultipartUploads",
    ("GET", "versions"): "s3:ListBucketVersions",
    ("GET", "location"): "s3:GetBucketLocation",
    ("GET", "notification"): "s3:GetBucketNotification",
}
_S3_OBJECT_ACTIONS = {
    ("GET", "uploadId"): "s3:ListMultipartUploadParts",
    ("DELETE", "uploadId"): "s3:AbortMultipartUpload",
    ("GET", "tagging"): "s3:GetObjectTagging",
    ("PUT", "tagging"): "s3:PutObjectTagging",
}
_S3_VERSIONED = {"GET": "s3:GetObjectVersion", "HEAD": "s3:GetObjectVersion", "DELETE": "s3:DeleteObjectVersion"}
_S3_PLAIN = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "DELETE": "s3:DeleteObject", "PUT": "s3:PutObject"}
_TRANSACTION_ACTIONS = {"Get": "GetItem", "Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}


class UnknownActionError(LookupError):
    """The rehearsal does not know which permission a call needs, so it cannot let it through."""


@dataclass(frozen=True)
class Place:
    """The account and Region of the embedded AWS."""

    account: str
    region: str

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


def demands(request: HttpRequest, place: Place) -> list[Demand]:
    """Return the permissions that `request` needs; raises UnknownActionError."""
    service = _SERVICES.get(request.service)
    if service is None:
        raise UnknownActionError(f"the rehearsal checks no permissions of the service {request.service}")
    return list(service(request, place))


def _s3(request: HttpRequest, _: Place) -> Iterator[Demand]:
    bucket, key = request.bucket_and_key
    arn = f"arn:aws:s3:::{bucket}"
    context = {"aws:SecureTransport": "true"}
    if not bucket:
        yield Demand("s3:ListAllMyBuckets", "*", context)
    elif not key:
        if "prefix" in request.query:
            context["s3:prefix"] = request.query["prefix"]
        yield Demand(_s3_action(request, _S3_BUCKET_ACTIONS, "s3:ListBucket"), arn, context)
    else:
        plain = _S3_VERSIONED if "versionId" in request.query else _S3_PLAIN
        action = _s3_action(request, _S3_OBJECT_ACTIONS, plain.get(request.method, "s3:PutObject"))
        if "attributes" in request.query:
            yield Demand("s3:GetObjectAttributes", f"{arn}/{key}", context)
        yield Demand(action, f"{arn}/{key}", context)
        if "x-amz-tagging" in request.headers:
            yield Demand("s3:PutObjectTagging", f"{arn}/{key}", context)
        source = request.headers.get("x-amz-copy-source")
        if source is not None:
            yield Demand("s3:GetObject", f"arn:aws:s3:::{source.lstrip('/').split('?')[0]}", context)


def _s3_action(request: HttpRequest, table: dict[tuple[str, str], str], otherwise: str) -> str:
    for (method, parameter), action in table.items():
        if request.method == method and parameter in request.query:
            return action
    return otherwise


def _dynamodb(request: HttpRequest, place: Place) -> Iterator[Demand]:
    parameters = request.json
    if request.operation in ("TransactWriteItems", "TransactGetItems"):
        for item in as_list(parameters["TransactItems"], "TransactItems"):
            for kind, part in as_object(item, "TransactItems").items():
                action = _TRANSACTION_ACTIONS.get(kind, "ConditionCheckItem")
                yield Demand(f"dynamodb:{action}", _table(as_object(part, kind), place))
        return
    if request.operation in ("BatchWriteItem", "BatchGetItem"):
        for name in as_object(parameters["RequestItems"], "RequestItems"):
            yield Demand(f"dynamodb:{request.operation}", _table({"TableName": name}, place))
        return
    index = f"/index/{parameters['IndexName']}" if "IndexName" in parameters else ""
    yield Demand(f"dynamodb:{request.operation}", _table(parameters, place) + index)


def _table(parameters: JsonObject, place: Place) -> str:
    name = str(parameters.get("TableName", "*"))
    return name if name.startswith("arn:") else place.arn("dynamodb", f"table/{name}")


def _ssm(request: HttpRequest, place: Place) -> Iterator[Demand]:
    parameters = request.json
    names: list[Json] = as_list(parameters.get("Names", []), "Names")
    for name in names or [parameters.get("Name", parameters.get("Path", "*"))]:
        yield Demand(f"ssm:{request.operation}", place.arn("ssm", f"parameter/{str(name).lstrip('/')}"))


def _states(request: HttpRequest, _: Place) -> Iterator[Demand]:
    parameters = request.json
    yield Demand(
        f"states:{request.operation}", str(parameters.get("executionArn", parameters.get("stateMachineArn", "*")))
    )


def _cloudformation(request: HttpRequest, place: Place) -> Iterator[Demand]:
    name = request.form.get("StackName", "*")
    arn = name if name.startswith("arn:") else place.arn("cloudformation", f"stack/{name}/*")
    yield Demand(f"cloudformation:{request.operation}", arn)


def _sns(request: HttpRequest, _: Place) -> Iterator[Demand]:
    yield Demand(f"sns:{request.operation}", request.form.get("TopicArn", "*"))


def _sqs(request: HttpRequest, place: Place) -> Iterator[Demand]:
    queue = str(request.json.get("QueueUrl", "*")).rsplit("/", 1)[-1]
    yield Demand(f"sqs:{request.operation}", place.arn("sqs", queue))


def _kms(request: HttpRequest, place: Place) -> Iterator[Demand]:
    key = str(request.json.get("KeyId", "*"))
    yield Demand(f"kms:{request.operation}", key if key.startswith("arn:") else place.arn("kms", f"key/{key}"))


def _lambda(request: HttpRequest, place: Place) -> Iterator[Demand]:
    function = function_of(request)
    if function is None:
        raise UnknownActionError("the rehearsal checks no permission of Lambda but that of Invoke")
    arn = function if function.startswith("arn:") else place.arn("lambda", f"function:{function}")
    yield Demand("lambda:InvokeFunction", arn)


def function_of(request: HttpRequest) -> str | None:
    """Return the name or ARN that an Invoke request names, or None for another call."""
    parts = request.path.strip("/").split("/")
    if len(parts) != 4 or parts[1] != "functions" or parts[3] != "invocations":  # noqa: PLR2004  the path of Invoke
        return None
    name = parts[2].replace("%3A", ":").replace("%3a", ":")
    return f"{name}:{request.query['Qualifier']}" if "Qualifier" in request.query else name


def _named(service: str) -> Callable[[HttpRequest, Place], Iterator[Demand]]:
    def demand(request: HttpRequest, _: Place) -> Iterator[Demand]:
        yield Demand(f"{service}:{request.operation}", "*")

    return demand


_SERVICES: dict[str, Callable[[HttpRequest, Place], Iterator[Demand]]] = {
    "s3": _s3,
    "dynamodb": _dynamodb,
    "ssm": _ssm,
    "states": _states,
    "cloudformation": _cloudformation,
    "sns": _sns,
    "sqs": _sqs,
    "kms": _kms,
    "lambda": _lambda,
    "servicequotas": _named("servicequotas"),
    "events": _named("events"),
    "logs": _named("logs"),
    "monitoring": _named("cloudwatch"),
    "sts": _named("sts"),
}
