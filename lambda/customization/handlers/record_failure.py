"""RecordFailure: the run's row says how it ended, with cause and fix."""

from customization.failures import record_failure
from customization.gateway import Gateway
from customization.handlers import emit, task
from customization.json_types import JsonObject, as_text
from customization.metrics import RUNS_FAILED
from customization.runs import read_call
from customization.texts import read_language


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    error, cause, state = (as_text(event.get(name) or "", name) for name in ("error", "cause", "failedState"))
    call = read_call(event)
    answer = record_failure(gateway, call, error, cause, state, language=read_language(event.get("language")))
    emit(gateway, {RUNS_FAILED: 1}, {"runId": call.run_id, "error": error, "failedState": state})
    return answer
