"""ReleaseModel: a custom model that is not worth its storage goes."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.releasing import release_model
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return release_model(gateway, owned_plan(gateway, call), call)
