"""PrepareDataset: valid, converted and split data, and what the run will cost."""

from customization import notices
from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.preparation import prepare
from customization.runs import owned_plan, read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    plan = owned_plan(gateway, call)
    answer = prepare(gateway, plan, call)
    if plan.action != "estimate":
        return answer
    # Only an estimate is drawn here; a run that goes on need not wait for the modules that draw
    from customization.publishing import publish_estimate  # noqa: PLC0415  as said above

    report = publish_estimate(gateway, plan, call)
    return {**answer, "message": notices.with_report(gateway, plan.run_id, str(answer["message"]), report)}
