"""CreateModelDeployment: serves the custom model through an on-demand deployment."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.runs import owned_plan, read_call
from customization.serving import create_serving


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    model_arn, entered_at = (as_text(event[name], name) for name in ("modelArn", "enteredAt"))
    return create_serving(gateway, owned_plan(gateway, call), call, model_arn, entered_at=entered_at)
