"""PlanRun: what is to be run, on which versions of which files, and is it new?"""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.planning import plan_run
from customization.runs import read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    return plan_run(gateway, event["input"], read_call(event))
