"""ReleaseResources and ReleaseRun: everything that a run holds and that bills."""

from customization import metrics, notices
from customization.gateway import Gateway
from customization.handlers import emit, logger, task
from customization.history import read_run
from customization.json_types import JsonObject, as_text
from customization.releasing import release_all, release_dataset
from customization.runs import Call, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    if event.get("dataset"):
        return release_dataset(gateway, as_text(event["dataset"], "dataset"), call.now)
    answer = release_all(gateway, call, as_text(event.get("message") or "", "message"))
    message = str(answer["message"])
    return {**answer, "message": _reported(gateway, call, message) if call.run_id else message}


def _reported(gateway: Gateway, call: Call, message: str) -> str:
    """Write what a failed run has spent into the log, and its report, and return the message with its place.

    Whatever prevents either must not prevent the rest of the failure path.
    """
    try:
        run = read_run(gateway, call.run_id)
        emit(gateway, metrics.of_spend(run), metrics.about_run(run))
        # The modules that draw are loaded after the release, which must not depend on them
        from customization.publishing import publish_failure  # noqa: PLC0415  as said above

        return notices.with_report(gateway, call.run_id, message, publish_failure(gateway, call))
    except Exception as error:  # noqa: BLE001  as said above
        logger.warning("no report", extra={"error": type(error).__name__, "reason": str(error)})
        return message
