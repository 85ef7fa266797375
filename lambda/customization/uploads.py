"""Files that people drop: when a folder is complete, and what to say of files that no run will use."""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from customization import notices
from customization.errors import InvalidRunRequest, UploadsIncomplete
from customization.gateway.tables import Attr
from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from customization.links import move_command
from customization.problems import excerpt
from customization.runs import RUNNING, UPLOADS, Call, trace
from customization.texts import Sentence, one_line

if TYPE_CHECKING:
    from customization.gateway import Gateway

INCOMING = "incoming/"
DATA_FILES = ("train.jsonl", "pretrain.jsonl", "validation.jsonl", "test.jsonl")
REQUEST_FILE = "run.json"
TRIGGERS = ("train.jsonl", "pretrain.jsonl", REQUEST_FILE)
LONGEST_WAIT = timedelta(hours=2)
SHORTEST_POLL_SECONDS = 5
# As much as Step Functions takes from the console (Developer Guide, quotas of state machine executions)
MOST_REQUEST_BYTES = 262_144
# Amazon S3 User Guide, "Naming Amazon S3 objects"
LONGEST_KEY_BYTES = 1_024
# A second mistake in the same folder within this time is part of the first.
SAME_MISTAKE = timedelta(hours=1)

_MOST_NAMES = 10
_DATASET = re.compile(r"[a-z0-9](-?[a-z0-9]){0,29}")


@dataclass(frozen=True, kw_only=True)
class Drop:
    """An S3 event about an object under incoming/."""

    bucket: str
    key: str
    at: datetime | None = None

    @property
    def folder(self) -> str:
        """Return the key up to the last slash."""
        return self.key.rpartition("/")[0] + "/"

    @property
    def file_name(self) -> str:
        """Return what follows the last slash."""
        return self.key.rpartition("/")[2]


def read_drop(event: Json) -> Drop | None:
    """Return the drop that an EventBridge event tells of, or None where `event` is a run request from the console.

    Raises:
        InvalidRunRequest: a person typed what is like an event and is none.
    """
    if not isinstance(event, dict) or event.get("source") != "aws.s3":
        return None
    try:
        detail = as_object(event.get("detail"), "detail")
        return Drop(
            bucket=_as_name(as_object(detail.get("bucket"), "detail.bucket").get("name"), "detail.bucket.name"),
            key=_as_name(as_object(detail.get("object"), "detail.object").get("key"), "detail.object.key"),
            at=_as_time(event["time"], "time") if "time" in event else None,
        )
    except (TypeError, ValueError) as error:
        raise InvalidRunRequest.of("error.noDrop", problem=one_line(str(error))) from error


def _as_name(value: Json, what: str) -> str:
    name = as_text(value, what)
    # A lone surrogate is no Unicode; UnicodeEncodeError is a ValueError
    if len(name.encode()) > LONGEST_KEY_BYTES:
        raise ValueError(f"{what}: expected at most {LONGEST_KEY_BYTES:,} bytes of UTF-8")
    return name


def _as_time(value: Json, what: str) -> datetime:
    time = datetime.fromisoformat(as_text(value, what))
    if time.tzinfo is None:
        raise ValueError(f"{what}: expected a time with its zone, such as 2026-11-22T09:30:00Z")
    return time


def dataset_of(drop: Drop) -> str:
    """Return the data set of a drop; raises InvalidRunRequest where the key is not incoming/<dataset>/<file>."""
    dataset = _dataset_of(drop)
    if not dataset:
        raise InvalidRunRequest.of(
            "error.folder",
            uri=one_line(f"s3://{drop.bucket}/{drop.key}"),
            found=excerpt(drop.folder.removeprefix(INCOMING).removesuffix("/")),
            command=move_command(drop.bucket, drop.key, _better_key(drop)),
        )
    return dataset


def _dataset_of(drop: Drop) -> str:
    """Return the data set of a drop, "" where its folder names none."""
    dataset = drop.folder.removeprefix(INCOMING).removesuffix("/")
    return dataset if _DATASET.fullmatch(dataset) else ""


def _better_key(drop: Drop) -> str:
    """Return where a run would use the object."""
    name = (
        re.sub(r"[^a-z0-9]+", "-", drop.folder.removeprefix(INCOMING).lower()).strip("-")[:30].strip("-") or "my-data"
    )
    file_name = drop.file_name if drop.file_name in (*DATA_FILES, REQUEST_FILE) else "train.jsonl"
    return f"{INCOMING}{name}/{file_name}"


def poll_uploads(gateway: "Gateway", event: Json, call: Call, started_at: datetime) -> JsonObject:
    """Return {status, waitSeconds}: complete, waiting, or joined when another execution already waits for the folder.

    A folder is complete when nothing new came for `settleSeconds`, no multipart upload is under way, and every file
    that run.json expects is there. A start from the console waits for nothing.

    Raises:
        InvalidRunRequest: the object does not lie in a data set's folder.
        UploadsIncomplete: two hours were not enough.
    """
    drop = read_drop(event)
    dataset = dataset_of(drop) if drop else ""
    claim = f"{UPLOADS}{dataset}"
    if dataset and not _is_claimed(gateway, claim, call):
        return {"status": "joined", "waitSeconds": 0}
    trace(gateway, call.execution_arn)
    if not dataset:
        return {"status": "complete", "waitSeconds": 0}
    seconds, reason = _unsettled(gateway, dataset, call.now, started_at)
    if seconds == 0:
        gateway.runs.delete(claim, Attr("executionArn").eq(call.execution_arn))
        return {"status": "complete", "waitSeconds": 0}
    if call.now - started_at > LONGEST_WAIT:
        gateway.runs.delete(claim, Attr("executionArn").eq(call.execution_arn))
        raise UploadsIncomplete(
            Sentence("uploads.incomplete", {"folder": f"{INCOMING}{dataset}/", "limit": str(LONGEST_WAIT)}), [[reason]]
        )
    return {"status": "waiting", "waitSeconds": seconds}


def _is_claimed(gateway: "Gateway", claim: str, call: Call) -> bool:
    """Return whether this execution is the one that waits for the folder; takes over from one that has ended."""
    row: JsonObject = {"runId": claim, "executionArn": call.execution_arn, "since": call.now.isoformat()}
    if gateway.runs.put_new(row):
        return True
    known = gateway.runs.get(claim)
    if known is None:
        return gateway.runs.put_new(row)
    if known["executionArn"] == call.execution_arn:
        return True
    if gateway.execution_status(str(known["executionArn"]))[0] == RUNNING:
        return False
    return gateway.runs.put(row, Attr("executionArn").eq(str(known["executionArn"])))


def _unsettled(gateway: "Gateway", dataset: str, now: datetime, started_at: datetime) -> tuple[int, Sentence]:
    """Return for how many seconds to wait and why; 0 when the folder is complete.

    S3 dates an object that came in parts by the beginning of its upload, which may be long ago (User Guide, "System
    defined object metadata"), so the start of the execution counts as the arrival of the object that started it.
    """
    prefix = f"{INCOMING}{dataset}/"
    settle = gateway.settings.defaults.settle_seconds
    found = gateway.data.listed(prefix)
    uploads = gateway.data.open_uploads(prefix)
    if uploads:
        names = sorted({one_line(key) for key in uploads})[:_MOST_NAMES]
        return max(settle, SHORTEST_POLL_SECONDS), Sentence("uploads.inProgress", {"files": ", ".join(names)})
    missing = _expected(gateway, dataset) - {item.key.removeprefix(prefix) for item in found}
    if missing:
        reason = Sentence("uploads.missing", {"files": ", ".join(sorted(missing))})
        return max(settle, SHORTEST_POLL_SECONDS), reason
    quiet = min((now - arrival).total_seconds() for arrival in (started_at, *(item.last_modified for item in found)))
    wait = 0 if quiet >= settle else max(int(settle - quiet) + 1, SHORTEST_POLL_SECONDS)
    return wait, Sentence("uploads.coming")


def _expected(gateway: "Gateway", dataset: str) -> set[str]:
    """Return the files that run.json waits for; a run.json that cannot be read is for PlanRun to refuse."""
    try:
        expected = as_list(read_request_file(gateway, dataset).get("expect", []), "expect")
    except (InvalidRunRequest, TypeError):
        return set()
    return {name for name in DATA_FILES if name in expected}


def read_request_file(gateway: "Gateway", dataset: str) -> JsonObject:
    """Return what stands in the run.json of a data set's folder, or {} where there is none.

    Raises:
        InvalidRunRequest: it cannot be read as an object, or is about another data set.
    """
    key = f"{INCOMING}{dataset}/{REQUEST_FILE}"
    body = gateway.data.read_if_there(key, MOST_REQUEST_BYTES + 1)
    if body is None:
        return {}
    if len(body) > MOST_REQUEST_BYTES:
        raise InvalidRunRequest.of("runJson.tooLarge", key=key, most=f"{MOST_REQUEST_BYTES:,}")
    try:
        document = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_refuse_repeated)
    except UnicodeDecodeError as error:
        raise InvalidRunRequest.of("runJson.encoding", key=key, byte=str(error.start)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRunRequest.of("runJson.notJson", key=key, problem=str(error)) from error
    if not isinstance(document, dict):
        raise InvalidRunRequest.of("runJson.noObject", key=key, dataset=dataset)
    named = document.get("dataset", dataset)
    if named != dataset:
        found = excerpt(named) if isinstance(named, str) else type(named).__name__
        raise InvalidRunRequest.of("runJson.otherDataset", key=key, found=found, expected=repr(dataset))
    return document


def _refuse_repeated(pairs: list[tuple[str, Json]]) -> JsonObject:
    """Refuse a key that an object has twice: of two budgets neither is certain."""
    document: JsonObject = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"an object has the key {excerpt(key)} twice")
        document[key] = value
    return document


def is_used(drop: Drop) -> bool:
    """Return whether a run reads the object, or an execution that it starts says what is wrong with it."""
    if drop.file_name in TRIGGERS and drop.key.count("/") > 1:
        return True
    return (bool(_dataset_of(drop)) and drop.file_name in DATA_FILES) or drop.key.endswith("/")


def explain_unused(gateway: "Gateway", drop: Drop, now: datetime) -> JsonObject:
    """Tell the topic once a folder about an object that no run will use; return {"explained": whether it was told}."""
    if is_used(drop):
        return {"explained": False}
    told = notices.unused(
        bucket=drop.bucket,
        key=drop.key,
        better_key=_better_key(drop),
        names=(*DATA_FILES, REQUEST_FILE),
        language=gateway.settings.defaults.language,
    )
    row: JsonObject = {"runId": f"unused#{drop.folder}", "since": now.isoformat()}
    long_ago = Attr("since").lt((now - SAME_MISTAKE).isoformat())
    if not gateway.runs.put(row | {notices.UNTOLD: told.payload()}, Attr("runId").not_exists() | long_ago):
        return {"explained": False}
    gateway.publish(told.subject, told.message)
    gateway.runs.put(row)
    return {"explained": True}
