"""One module for each Task state, named after it: parse, one domain call, a dict back."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger

from customization.gateway import Gateway, connect
from customization.json_types import JsonObject

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


def task(function: Callable[[JsonObject, Gateway], JsonObject]) -> "Callable[[JsonObject, LambdaContext], JsonObject]":
    """Make a Lambda handler of `function`: it logs what was decided, and raises what Retry and Catch match by name."""

    @wraps(function)
    def handler(event: JsonObject, context: "LambdaContext") -> JsonObject:
        logger.append_keys(
            runId=event.get("runId") or "", attempt=event.get("attempt") or 0, requestId=context.aws_request_id
        )
        try:
            result = function(event, connect())
        except Exception as error:
            logger.warning("raised", extra={"error": type(error).__name__, "reason": str(error)})
            raise
        logger.info("done", extra={"result": result})
        return result

    return handler
