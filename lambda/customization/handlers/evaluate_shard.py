"""EvaluateBaselineShard, EvaluateModelInUseShard, EvaluateCustomModelShard: asks a model part of the test records."""

from customization.answering import answer_shard, asked_model
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_int, as_text
from customization.model_in_use import read_served
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    plan = owned_plan(gateway, call)
    serving_arn = as_text(event.get("servingArn") or "", "servingArn")
    asked = asked_model(
        gateway, plan, as_text(event["side"], "side"), serving_arn, read_served(event.get("modelInUse"))
    )
    return answer_shard(gateway, plan, call, asked, as_int(event["shard"], "shard"))
