"""PromoteModel: the custom model becomes the one in use for its data set."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.promotion import promote
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return promote(
        gateway,
        owned_plan(gateway, call),
        call,
        serving_arn=as_text(event["servingArn"], "servingArn"),
        model_arn=as_text(event["modelArn"], "modelArn"),
    )
