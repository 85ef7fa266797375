"""CompareModels: is the custom model better than its base?"""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.results import compare_models
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return compare_models(gateway, owned_plan(gateway, call), call)
