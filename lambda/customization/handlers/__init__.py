"""One module for each Task state, named after it: parse, one domain call, a dict back."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger

from customization import notices
from customization.errors import PipelineError, TransientError
from customization.gateway import Gateway, connect
from customization.json_types import JsonObject
from customization.texts import LANGUAGES

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


def task(function: Callable[[JsonObject, Gateway], JsonObject]) -> "Callable[[JsonObject, LambdaContext], JsonObject]":
    """Make a Lambda handler of `function`: it logs what was decided, and raises what Retry and Catch match by name.

    What it raises is logged in English and told in the language of the run.
    """

    @wraps(function)
    def handler(event: JsonObject, context: "LambdaContext") -> JsonObject:
        logger.append_keys(
            runId=event.get("runId") or "", attempt=event.get("attempt") or 0, requestId=context.aws_request_id
        )
        try:
            result = function(event, connect())
        except Exception as error:
            logger.warning("raised", extra={"error": type(error).__name__, "reason": str(error)})
            if isinstance(error, PipelineError):
                error.put_into(_language(event, connect()))
            raise
        logger.info("done", extra={"result": result})
        return result

    return handler


def _language(event: JsonObject, gateway: Gateway) -> str:
    asked = event.get("language")
    if asked in LANGUAGES:
        return str(asked)
    try:
        return notices.language_of(gateway, str(event.get("runId") or ""))
    except (PipelineError, TransientError):  # what is told must not depend on another call
        return gateway.settings.defaults.language
