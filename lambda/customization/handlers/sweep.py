"""The sweeper: what nobody needs is released, and runs that died without a word are recorded."""

from datetime import datetime

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_object, as_text
from customization.sweeper import sweep


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    now = datetime.fromisoformat(as_text(event["time"], "time"))
    if "detail" not in event or not event["detail"]:  # the schedule's
        return sweep(gateway, now)
    execution = as_object(event["detail"], "detail")
    arn, status = (as_text(execution[name], name) for name in ("executionArn", "status"))
    return sweep(gateway, now, (arn, status, str(execution.get("error") or "")))
