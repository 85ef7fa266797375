"""What moto's S3 does not do: it tells nobody of new objects, and keeps no time of uploads under way."""

import itertools
import re
from typing import TYPE_CHECKING

from rehearsal.clock import VirtualClock
from rehearsal.embedded.deployed import Deployed
from rehearsal.embedded.events import EventBus
from rehearsal.embedded.moto_services import MotoServices
from rehearsal.embedded.requests import HttpAnswer, HttpRequest

if TYPE_CHECKING:
    from customization.json_types import JsonObject

_UPLOAD_ID = re.compile(r"<UploadId>(.*?)</UploadId>")
_INITIATED = re.compile(r"<Initiated>.*?</Initiated>")


class ObjectsCreated:
    """Publishes an event for each new object of a bucket that sends events to EventBridge."""

    def __init__(self, moto: MotoServices, deployed: Deployed, events: EventBus) -> None:
        self._moto = moto
        self._deployed = deployed
        self._events = events
        self._sequence = itertools.count(0x0062E99A88DC407460)

    def tell(self, request: HttpRequest, answer: HttpAnswer) -> None:
        """Publish the event where a request to S3 that succeeded has made an object."""
        bucket, key = request.bucket_and_key
        reason = _created_by(request, answer)
        if reason is None or bucket not in self._deployed.event_buckets:
            return
        stored = self._moto.stored_object(bucket, key)
        described: JsonObject = {
            "key": key,
            "size": stored.size,
            "etag": stored.etag,
            "sequencer": f"{next(self._sequence):018X}",
        }
        if stored.version_id is not None:
            described["version-id"] = stored.version_id
        detail: JsonObject = {
            "version": "0",
            "bucket": {"name": bucket},
            "object": described,
            "request-id": f"{next(self._sequence):016X}"[-16:],
            "requester": self._moto.account,
            "source-ip-address": "127.0.0.1",
            "reason": reason,
        }
        arn = f"arn:aws:s3:::{bucket}"
        self._events.publish(self._events.event("aws.s3", "Object Created", [arn], detail))


def _created_by(request: HttpRequest, answer: HttpAnswer) -> str | None:
    """Return the reason that S3's event gives for a new object, None when the request made none."""
    _, key = request.bucket_and_key
    if not key:
        return None
    if request.method == "POST" and "uploadId" in request.query:
        return "CompleteMultipartUpload" if b"CompleteMultipartUploadResult" in answer.body else None
    if request.method != "PUT" or request.query.keys() - {"x-id"}:
        return None
    return "CopyObject" if "x-amz-copy-source" in request.headers else "PutObject"


class UploadTimes:
    """When multipart uploads began: moto gives all the same time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._began: dict[str, str] = {}

    def put_into(self, answer: HttpAnswer, request: HttpRequest) -> HttpAnswer:
        """Return the answer with the times of uploads in a list of them, and note the time of one that begins."""
        if request.service != "s3" or "uploads" not in request.query:
            return answer
        text = answer.body.decode()
        if request.method == "POST":
            now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
            self._began.update(dict.fromkeys(_UPLOAD_ID.findall(text), now))
            return answer
        times = iter([self._began[upload] for upload in _UPLOAD_ID.findall(text)])
        body = _INITIATED.sub(lambda _: f"<Initiated>{next(times)}</Initiated>", text).encode()
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
        return HttpAnswer(answer.status, {**headers, "Content-Length": str(len(body))}, body)
