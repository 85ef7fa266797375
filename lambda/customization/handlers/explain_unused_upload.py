"""Tells people about files under incoming/ that no run will use."""

from datetime import datetime

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.uploads import explain_unused, read_drop


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    drop = read_drop(event)
    if drop is None:
        return {"explained": False}
    return explain_unused(gateway, drop, datetime.fromisoformat(as_text(event["time"], "time")))
