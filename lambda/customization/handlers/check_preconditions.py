"""CheckPreconditions: can this account, Region and base model do what the run asks?"""

from customization.account import check_preconditions
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return check_preconditions(gateway, owned_plan(gateway, call), call)
