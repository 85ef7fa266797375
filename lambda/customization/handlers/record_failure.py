"""RecordFailure: the run's row says how it ended, with cause and fix."""

from customization.failures import record_failure
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.runs import read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    names = ("error", "cause", "failedState", "language")
    error, cause, state, language = (as_text(event.get(name) or "", name) for name in names)
    return record_failure(gateway, read_call(event), error, cause, state, language=language)
