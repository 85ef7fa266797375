"""CollectTrainingMetrics: what Bedrock measured while it trained."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_int, as_text
from customization.runs import owned_plan, read_call
from customization.training import collect_metrics


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return collect_metrics(
        gateway,
        owned_plan(gateway, call),
        call,
        as_int(event["stage"], "stage"),
        as_text(event["jobArn"], "jobArn"),
    )
