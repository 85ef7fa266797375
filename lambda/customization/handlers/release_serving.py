"""ReleaseServing: what served the model for its evaluation goes, unless it is kept or promoted."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.releasing import release_serving
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return release_serving(gateway, owned_plan(gateway, call), call)
