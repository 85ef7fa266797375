"""EvaluateBaselineShard and EvaluateCustomModelShard: asks one model a part of the test records."""

from customization.answering import answer_shard
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_int, as_text
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    return answer_shard(
        gateway,
        owned_plan(gateway, call),
        call,
        side=as_text(event["side"], "side"),
        shard=as_int(event["shard"], "shard"),
        serving_arn=as_text(event.get("servingArn") or "", "servingArn"),
    )
