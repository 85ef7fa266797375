"""PollCustomizationJob: how far is the job?"""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.runs import owned_plan, read_call
from customization.training import poll_job


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    owned_plan(gateway, call)
    return poll_job(gateway, call, as_text(event["jobArn"], "jobArn"))
