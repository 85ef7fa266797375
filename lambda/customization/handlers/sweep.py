"""The sweeper: what nobody needs is released, and runs that died without a word are recorded."""

from datetime import datetime

from customization import metrics
from customization.gateway import ExecutionEnd, Gateway
from customization.handlers import emit, logger, task
from customization.json_types import JsonObject, as_object, as_text
from customization.sweeper import Swept, sweep


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    swept = sweep(gateway, datetime.fromisoformat(as_text(event["time"], "time")), _ended(event))
    answer = swept.answer()
    emit(gateway, metrics.of_sweep(swept), {"live": answer["live"], "overdue": answer["overdue"]})
    for run in swept.ended:
        emit(gateway, metrics.of_spend(run), metrics.about_run(run))
    _log(swept)
    swept.raise_refused()
    return answer


def _log(swept: Swept) -> None:
    """Log what was decided: a sweep that was refused something has no answer that is logged."""
    for run_id in swept.runs:
        logger.info("recorded the end", extra={"runId": run_id})
    for action in swept.released:
        logger.info("released", extra={"runId": action.run_id, "did": action.did})
    for action in swept.refused:
        logger.warning("refused", extra={"runId": action.run_id, "did": action.did})


def _ended(event: JsonObject) -> tuple[str, ExecutionEnd] | None:
    """Return the ARN and the end of the execution that the event tells of, None for the schedule's event."""
    if not event.get("detail"):
        return None
    execution = as_object(event["detail"], "detail")
    arn, status = (as_text(execution[name], name) for name in ("executionArn", "status"))
    return arn, ExecutionEnd(status, *(str(execution.get(name) or "") for name in ("error", "cause")))
