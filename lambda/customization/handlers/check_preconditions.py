"""CheckPreconditions: can this account, Region and base model do what the run asks, and does a model in use answer?"""

import msgspec

from customization.account import check_preconditions
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.model_in_use import served_in_use
from customization.runs import note, owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    plan = owned_plan(gateway, call)
    in_use = served_in_use(gateway, plan)
    model_in_use: JsonObject = msgspec.to_builtins(in_use) if in_use else {}
    note(gateway, call, {"modelInUse": model_in_use})
    return {**check_preconditions(gateway, plan, call), "modelInUse": model_in_use}
