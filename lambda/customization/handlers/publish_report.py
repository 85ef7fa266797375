"""PublishReport: the run as a page, as data and as a notification."""

from customization import metrics
from customization.gateway import Gateway
from customization.handlers import emit, task
from customization.history import read_run
from customization.json_types import JsonObject
from customization.publishing import publish_report
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    answer = publish_report(gateway, owned_plan(gateway, call), call)
    run = read_run(gateway, call.run_id)
    emit(gateway, metrics.of_run(run), metrics.about_run(run))
    return answer
