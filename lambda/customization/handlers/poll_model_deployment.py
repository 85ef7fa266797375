"""PollModelDeployment: does the on-demand deployment answer yet?"""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.runs import owned_plan, read_call
from customization.serving import poll_serving


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return poll_serving(
        gateway, owned_plan(gateway, call, goes_on=False), call, as_text(event["servingArn"], "servingArn")
    )
