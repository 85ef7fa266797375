"""PollUploads: has the dropped folder settled?"""

from datetime import datetime

from customization.gateway import Gateway
from customization.handlers import task
from customization.json_types import JsonObject, as_text
from customization.runs import read_call
from customization.uploads import poll_uploads


@task
def handler(event: JsonObject, gateway: Gateway) -> JsonObject:
    started_at = datetime.fromisoformat(as_text(event["startedAt"], "startedAt"))
    return poll_uploads(gateway, event["input"], read_call(event), started_at)
