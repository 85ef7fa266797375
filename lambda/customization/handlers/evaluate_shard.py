"""EvaluateBaselineShard, EvaluateModelInUseShard, EvaluateCustomModelShard: asks a model part of the test records."""

from customization.answering import answer_side
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_int, as_text
from customization.model_in_use import read_served
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return answer_side(
        gateway,
        owned_plan(gateway, call),
        call,
        side=as_text(event["side"], "side"),
        serving_arn=as_text(event.get("servingArn") or "", "servingArn"),
        in_use=read_served(event.get("modelInUse")),
        shard=as_int(event["shard"], "shard"),
    )
