"""PrepareDataset: valid, converted and split data, and what the run will cost."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.preparation import prepare
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return prepare(gateway, owned_plan(gateway, call), call)
