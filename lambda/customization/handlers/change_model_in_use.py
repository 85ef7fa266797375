"""ChangeModelInUse: the model of an earlier run, or the one before the present one, becomes the one in use."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.promotion import promote_run, roll_back
from customization.runs import read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    if event["action"] == "rollback":
        return roll_back(gateway, as_text(event["dataset"], "dataset"), call)
    return promote_run(gateway, as_text(event["data"], "data"), call)
