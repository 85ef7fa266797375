"""An HTTP request to the embedded AWS, and what can be told from it before any service sees it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs, unquote

from customization.json_types import Json, JsonObject


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpRequest:
    """`headers` have lower-case names; `path` is as sent, still encoded."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def _credential(self) -> list[str]:
        authorization = self.headers.get("authorization", "")
        if "Credential=" in authorization:
            return authorization.split("Credential=", 1)[1].split(",")[0].split("/")
        presigned = self.query.get("X-Amz-Credential")
        return ["", "", "", "s3"] if presigned is None else presigned.split("/")

    @property
    def access_key(self) -> str:
        return self._credential[0]

    @property
    def service(self) -> str:
        """Return the signing name, such as s3, states or bedrock; unsigned requests are S3's."""
        return self._credential[3]

    @cached_property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(self.query_string, keep_blank_values=True).items()}

    @cached_property
    def operation(self) -> str:
        """Return the operation of a JSON or query protocol call, or an empty text."""
        target = self.headers.get("x-amz-target")
        if target is not None:
            return target.rsplit(".", 1)[-1]
        return self.form.get("Action", "")

    @cached_property
    def form(self) -> dict[str, str]:
        """Return the parameters of a query protocol call."""
        if "form-urlencoded" not in self.headers.get("content-type", ""):
            return {}
        return {key: values[0] for key, values in parse_qs(self.body.decode(), keep_blank_values=True).items()}

    @cached_property
    def json(self) -> JsonObject:
        """Return the parameters of a JSON protocol call; empty when the body is no JSON object."""
        try:
            parsed: Json = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @cached_property
    def bucket_and_key(self) -> tuple[str, str]:
        """Return what an S3 request addresses, in either style: bucket in the path or in the host's name."""
        path = unquote(self.path).lstrip("/")
        host = self.headers.get("host", "").split(":")[0]
        if host.endswith(".localhost"):
            return host.removesuffix(".localhost"), path
        bucket, _, key = path.partition("/")
        return bucket, key


def json_error(status: int, code: str, message: str) -> HttpAnswer:
    """Return an error as the JSON and REST-JSON protocols write it."""
    body = json.dumps({"__type": code, "message": message}).encode()
    return HttpAnswer(status, {"Content-Type": "application/x-amz-json-1.0", "x-amzn-ErrorType": code}, body)
