"""ChangeModelInUse: the model of an earlier run, or the one before the present one, becomes the one in use."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.promotion import change_model_in_use
from customization.runs import read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    action, dataset, run_id = (as_text(event[name], name) for name in ("action", "dataset", "data"))
    return change_model_in_use(gateway, read_call(event), action=action, dataset=dataset, run_id=run_id)
