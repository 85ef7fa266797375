"""One module for each Task state, named after it: parse, one domain call, a dict back."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from customization import notices
from customization.errors import PipelineError, Throttled, TransientError
from customization.gateway import Gateway, connect
from customization.json_types import Json, JsonObject
from customization.metrics import THROTTLES, WITHOUT_UNIT
from customization.texts import Language, read_language

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()
# What an answer says to people may quote their data, which no log shall have
_FOR_PEOPLE = {"subject", "message", "cause", "fix"}


def task(function: Callable[[JsonObject, Gateway], JsonObject]) -> "Callable[[JsonObject, LambdaContext], JsonObject]":
    """Make a Lambda handler of `function`: it logs what was decided, and raises what Retry and Catch match by name.

    What it raises is logged in English and told in the language of the run.
    """

    @wraps(function)
    def handler(event: JsonObject, context: "LambdaContext") -> JsonObject:
        logger.append_keys(requestId=context.aws_request_id, **_names(event))
        try:
            result = function(event, connect())
        except Exception as error:  # logged and worded, then raised
            logger.warning("raised", extra={"error": type(error).__name__, "reason": str(error)})
            if isinstance(error, Throttled):
                emit(connect(), {THROTTLES: 1}, _names(event))
            if isinstance(error, PipelineError):
                error.put_into(_language(event, connect()))
            raise
        if result.get("runId"):  # of PlanRun, which makes the run
            logger.append_keys(runId=result["runId"], attempt=result.get("attempt"))
        logger.info("done", extra={"result": {key: result[key] for key in result if key not in _FOR_PEOPLE}})
        return result

    return handler


def _names(event: JsonObject) -> JsonObject:
    """Return which run and execution a call is for, as every line of the log says it."""
    told = event.get("detail")
    execution = event.get("executionArn") or (told.get("executionArn") if isinstance(told, dict) else "")
    return {"runId": event.get("runId") or "", "attempt": event.get("attempt") or 0, "executionArn": execution or ""}


def emit(gateway: Gateway, values: Mapping[str, float], about: Mapping[str, Json]) -> None:
    """Write metrics as one line into the function's log, where CloudWatch finds them; nothing is called.

    `about` stands beside them for queries of the log. As dimensions they would make metrics of their own, each billed.
    """
    if not values:
        return
    line = EphemeralMetrics()
    line.add_dimension(name="deployment", value=gateway.settings.deployment)
    for name, value in values.items():
        line.add_metric(name=name, unit="None" if name in WITHOUT_UNIT else "Count", value=value)
    for key, said in about.items():
        line.add_metadata(key, said)
    line.flush_metrics()


def _language(event: JsonObject, gateway: Gateway) -> Language:
    asked = read_language(event.get("language"))
    if asked:
        return asked
    try:
        return notices.language_of(gateway, str(event.get("runId") or ""))
    except (PipelineError, TransientError):  # what is told must not depend on another call
        return gateway.settings.defaults.language
