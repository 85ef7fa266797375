"""PublishReport: the run as a page, as data and as a notification."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.publishing import publish_report
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return publish_report(gateway, owned_plan(gateway, call), call)
