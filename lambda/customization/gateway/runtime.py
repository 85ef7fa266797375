"""Amazon Bedrock's runtime: asking models."""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from customization import errors
from customization.gateway.calls import named_errors
from customization.json_types import JsonObject, as_object

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient

# Within so long a question is asked again that was throttled or met an error of Bedrock, after 1, 2 and 4 seconds
ASKED_AGAIN_SECONDS = 8.0
_PAUSES_SECONDS = (1.0, 2.0, 4.0)


class BedrockRuntime:
    """Asking models. `timer` gives seconds and `pause` waits for some."""

    def __init__(
        self,
        client: "BedrockRuntimeClient",
        timer: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._timer, self._pause = client, timer, pause

    def ask(self, operation: str, parameters: JsonObject) -> JsonObject:
        """Return a model's answer to `converse` or `invoke_model`, whose body is JSON both ways, with the headers.

        What fails soon is asked again; what fails late would fail late again, while the time of the function runs out.
        """
        until = self._timer() + ASKED_AGAIN_SECONDS
        for seconds in _PAUSES_SECONDS:
            try:
                return self._ask(operation, parameters)
            except (errors.Throttled, errors.ServiceUnavailable):
                if self._timer() + seconds > until:
                    raise
                self._pause(seconds)
        return self._ask(operation, parameters)

    def _ask(self, operation: str, parameters: JsonObject) -> JsonObject:
        with named_errors():
            if operation == "converse":
                said = self._client.converse(**parameters)  # type: ignore[arg-type]  # built and tested by `inference`
                return {
                    "output": cast("JsonObject", said["output"]),
                    "stopReason": said["stopReason"],
                    "usage": cast("JsonObject", said["usage"]),
                }
            answer = self._client.invoke_model(
                modelId=str(parameters["modelId"]),
                body=json.dumps(parameters["body"], ensure_ascii=False).encode(),
                accept="application/json",
                contentType="application/json",
            )
            said_in_json = answer["body"].read()
        headers: JsonObject = {**answer["ResponseMetadata"]["HTTPHeaders"]}
        return {**_body(said_in_json), "ResponseMetadata": {"HTTPHeaders": headers}}


def _body(said: bytes) -> JsonObject:
    """Return the body of a model's answer; raises RequestRejected where it is no JSON object."""
    try:
        return as_object(json.loads(said), "the body of the answer")
    except (ValueError, RecursionError, TypeError) as error:
        raise errors.RequestRejected(f"InvokeModel: the answer is no JSON object ({error})") from error
