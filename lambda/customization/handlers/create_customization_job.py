"""CreateCustomizationJob: starts or adopts the model customization job of a stage."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_int
from customization.runs import owned_plan, read_call
from customization.training import create_job


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return create_job(gateway, owned_plan(gateway, call), call, as_int(event["stage"], "stage"))
