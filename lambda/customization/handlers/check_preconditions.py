"""CheckPreconditions: can this account, Region and base model do what the run asks, and does a model in use answer?"""

from customization import metrics
from customization.account import check_preconditions, facts_of_run
from customization.gateway import Gateway
from customization.handlers import emit, task
from customization.json_types import JsonObject
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    plan = owned_plan(gateway, call)
    facts = facts_of_run(gateway, plan)
    lifecycles = metrics.of_lifecycles((facts.model_status, facts.inference_model_status))
    emit(gateway, lifecycles, {"runId": plan.run_id, "baseModelIdentifier": plan.base_model_identifier})
    return check_preconditions(gateway, plan, call, facts)
