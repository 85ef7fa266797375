"""ReleaseResources and ReleaseRun: everything that a run holds and that bills."""

from customization import metrics
from customization.gateway import Gateway
from customization.handlers import emit, logger, task
from customization.json_types import JsonObject, as_text
from customization.release_and_report import release
from customization.runs import read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    dataset, message = (as_text(event.get(name) or "", name) for name in ("dataset", "message"))
    done = release(gateway, read_call(event), dataset=dataset, message=message)
    if done.run:
        emit(gateway, metrics.of_spend(done.run), metrics.about_run(done.run))
    if done.problem:
        logger.warning("no report", extra={"reason": done.problem})
    return done.answer
