"""ReleaseResources and ReleaseRun: everything that a run holds and that bills."""

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject
from customization.promotion import release_all
from customization.runs import read_call


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    return release_all(gateway, read_call(event))
