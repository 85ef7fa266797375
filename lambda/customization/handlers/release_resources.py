"""ReleaseResources and ReleaseRun: everything that a run holds and that bills."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.promotion import release_all, release_dataset
from customization.runs import read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    call = read_call(event)
    if event.get("dataset"):
        return release_dataset(gateway, as_text(event["dataset"], "dataset"), call.now)
    return release_all(gateway, call)
