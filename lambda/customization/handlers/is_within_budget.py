"""IsWithinBudget: reserves the estimate, or raises BudgetExceeded."""

from customization.budget import reserve
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return reserve(gateway, owned_plan(gateway, call), call)
