"""A run starts when its folder is complete, and no file is dropped without a word."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from customization.errors import InvalidRunRequest, UploadsIncomplete
from customization.json_types import JsonObject
from customization.runs import Call
from customization.sweeper import sweep
from customization.uploads import explain_unused, is_used, poll_uploads, read_drop
from tests.unit.fakes import EXECUTION, GatewayInMemory

SECOND = EXECUTION.replace("first", "second")


def event(key: str = "incoming/support/train.jsonl") -> JsonObject:
    return {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "time": "2026-11-22T09:00:00Z",
        "detail": {"bucket": {"name": "data"}, "object": {"key": key, "size": 3}},
    }


@pytest.fixture
def dropped_at(gateway: GatewayInMemory) -> datetime:
    """When train.jsonl was dropped: S3 dates objects itself."""
    gateway.data.put("incoming/support/train.jsonl", b"{}\n")
    return datetime.now(UTC)


def poll(
    gateway: GatewayInMemory, call: Call, now: datetime, *, started: datetime | None = None, arn: str = EXECUTION
) -> JsonObject:
    of_execution = replace(call, now=now, execution_arn=arn, run_id="")
    return poll_uploads(gateway, event(), of_execution, started or now - timedelta(minutes=5))


def test_a_start_from_the_console_waits_for_nothing(gateway: GatewayInMemory, call: Call) -> None:
    assert poll_uploads(gateway, {"dataset": "support"}, call, call.now)["status"] == "complete"


def test_a_folder_is_complete_once_nothing_new_came_for_the_settling_time(
    gateway: GatewayInMemory, call: Call, dropped_at: datetime
) -> None:
    waiting = poll(gateway, call, dropped_at + timedelta(seconds=10))
    assert waiting["status"] == "waiting"
    assert waiting["waitSeconds"] in {50, 51, 52}
    assert poll(gateway, call, dropped_at + timedelta(seconds=61))["status"] == "complete"


def test_a_large_file_that_s3_dates_by_the_beginning_of_its_upload_still_gives_the_other_files_time(
    gateway: GatewayInMemory, call: Call, dropped_at: datetime
) -> None:
    upload_ended = dropped_at + timedelta(minutes=10)
    waiting = poll(gateway, call, upload_ended + timedelta(seconds=2), started=upload_ended)
    assert waiting == {"status": "waiting", "waitSeconds": 59}
    assert poll(gateway, call, upload_ended + timedelta(seconds=61), started=upload_ended)["status"] == "complete"


def test_a_later_trigger_joins_the_run_that_waits_for_the_folder(
    gateway: GatewayInMemory, call: Call, dropped_at: datetime
) -> None:
    gateway.executions[SECOND] = "RUNNING"
    poll(gateway, call, dropped_at)
    assert poll(gateway, call, dropped_at, arn=SECOND)["status"] == "joined"


def test_the_folder_of_an_execution_that_died_while_it_waited_is_taken_over(
    gateway: GatewayInMemory, call: Call, dropped_at: datetime
) -> None:
    poll(gateway, call, dropped_at)
    gateway.executions[EXECUTION] = "ABORTED"
    assert poll(gateway, call, dropped_at + timedelta(seconds=61), arn=SECOND)["status"] == "complete"


def test_a_folder_is_not_complete_while_a_multipart_upload_is_in_progress(
    gateway: GatewayInMemory, call: Call, dropped_at: datetime
) -> None:
    boto3.client("s3", region_name="us-east-1").create_multipart_upload(
        Bucket="data", Key="incoming/support/validation.jsonl"
    )
    assert poll(gateway, call, dropped_at + timedelta(hours=1))["status"] == "waiting"
    with pytest.raises(UploadsIncomplete, match=r"the upload of incoming/support/validation\.jsonl is in progress"):
        poll(gateway, call, dropped_at + timedelta(hours=3), started=dropped_at)


def test_the_files_that_run_json_expects_are_waited_for(
    gateway: GatewayInMemory, call: Call, dropped_at: datetime
) -> None:
    gateway.data.put("incoming/support/run.json", b'{"expect": ["train.jsonl", "test.jsonl"]}')
    assert poll(gateway, call, dropped_at + timedelta(hours=1))["status"] == "waiting"
    gateway.data.put("incoming/support/test.jsonl", b"{}\n")
    assert poll(gateway, call, dropped_at + timedelta(hours=1))["status"] == "complete"


@pytest.mark.parametrize(
    "key", ["incoming/Support Data/train.jsonl", "incoming/a/b/train.jsonl", "incoming/train.jsonl"]
)
def test_an_object_outside_a_data_sets_folder_is_refused_with_the_command_that_mends_it(
    gateway: GatewayInMemory, call: Call, key: str
) -> None:
    with pytest.raises(InvalidRunRequest, match=r"aws s3 mv 's3://data/"):
        poll_uploads(gateway, event(key), call, call.now)


@pytest.mark.parametrize(
    ("key", "used"),
    [
        ("incoming/support/train.jsonl", True),
        ("incoming/support/test.jsonl", True),
        ("incoming/support/", True),
        ("incoming/support/data.csv", False),
        ("incoming/support/train.json", False),
        ("incoming/train.jsonl", False),
        ("incoming/a/b/test.jsonl", False),
        ("incoming/Support/validation.jsonl", False),
        # The execution that this one starts says what is wrong with it.
        ("incoming/Support/train.jsonl", True),
    ],
)
def test_what_no_run_will_use_is_told_from_what_one_does(key: str, *, used: bool) -> None:
    drop = read_drop(event(key))
    assert drop is not None
    assert is_used(drop) is used


def test_a_folder_with_unusable_files_is_explained_once_an_hour(gateway: GatewayInMemory, call: Call) -> None:
    drop = read_drop(event("incoming/support/data.csv"))
    assert drop is not None
    explain_unused(gateway, drop, call.now)
    explain_unused(gateway, drop, call.now + timedelta(minutes=5))
    assert len(gateway.published) == 1
    subject, message = gateway.published[0]
    assert subject.isascii()
    assert "incoming/support/data.csv" in message
    assert "customization.tabular 'data.csv' --out train.jsonl" in message
    assert "s3://data/incoming/support/train.jsonl" in message
    explain_unused(gateway, drop, call.now + timedelta(hours=2))
    assert len(gateway.published) == 2


def test_an_explanation_that_was_cut_short_is_told_by_the_sweeper(
    gateway: GatewayInMemory, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = read_drop(event("incoming/support/data.csv"))
    assert drop is not None

    def die(_subject: str, _message: str) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(gateway, "publish", die)
        with pytest.raises(SystemExit):
            explain_unused(gateway, drop, call.now)
    sweep(gateway, call.now)
    sweep(gateway, call.now)
    assert [subject for subject, _ in gateway.published] == ["No run will use a file you dropped"]
