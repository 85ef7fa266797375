"""The sweeper: what nobody needs is released, and runs that died without a word are recorded."""

from datetime import datetime

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.sweeper import sweep


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    return sweep(gateway, datetime.fromisoformat(as_text(event["time"], "time")))
