import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.json_types import Json, JsonObject, as_object
from rehearsal.clock import VirtualClock
from rehearsal.embedded.aws import EmbeddedAws
from rehearsal.embedded.event_patterns import matches, pattern_problems, target_input
from rehearsal.embedded.faults import FunctionFault, TaskCall, Throttle
from tests.unit.assembly_harness import allow, arn, function, imported, invoke, pipeline, ref, role, write

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening

START = datetime(2025, 1, 18, 9, tzinfo=UTC)
ECHO: JsonObject = {"Ask": invoke("Echo", "{% $states.input %}")}
DROPPED: JsonObject = {
    "source": ["aws.s3"],
    "detail-type": ["Object Created"],
    "detail": {
        "bucket": {"name": [imported("BucketName")]},
        "object": {"key": [{"wildcard": "incoming/*/train.jsonl"}]},
    },
}


class Faults:
    """Counts the calls of functions and lets the first ones fail."""

    def __init__(self) -> None:
        self.payloads: list[Json] = []
        self.fail: list[FunctionFault] = []

    def before_call(self, call: TaskCall) -> None:
        self.payloads.append(call.payload)
        if self.fail:
            raise self.fail.pop(0)

    def after_call(self, _: TaskCall) -> None:
        pass


class Deployed:
    """A deployed assembly with what its rules have delivered."""

    def __init__(self, aws: EmbeddedAws, outputs: dict[str, dict[str, str]], faults: Faults) -> None:
        self.aws = aws
        self.storage = outputs["Storage"]
        self.faults = faults
        self.delivered: list[Happening] = []
        aws.watch(lambda happening: self.delivered.append(happening) if happening.kind == "event-delivered" else None)

    def put(self, key: str, bucket: str = "BucketName") -> None:
        self.aws.session().client("s3").put_object(Bucket=self.storage[bucket], Key=key, Body=b"text")
        self.aws.wait_until_idle(60)

    def inputs(self) -> list[Json]:
        return [execution.input for execution in self.aws.executions()]

    def lost(self) -> list[Json]:
        queue = self.aws.session().client("sqs")
        url = queue.get_queue_url(QueueName="lost")["QueueUrl"]
        return [json.loads(message["Body"]) for message in queue.receive_message(QueueUrl=url).get("Messages", [])]


Deploy = Callable[[JsonObject], Deployed]


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    faults = Faults()
    aws = EmbeddedAws(
        VirtualClock(START), region="us-east-1", applications={}, log_dir=tmp_path / "logs", faults=faults
    )

    def deploy(resources: JsonObject) -> Deployed:
        return Deployed(aws, aws.deploy(write(tmp_path / "assembly", resources)), faults)

    with aws:
        yield deploy


def rule(target: JsonObject, **properties: Json) -> JsonObject:
    dead_letters: JsonObject = {"DeadLetterConfig": {"Arn": arn("Lost")}}
    targets: Json = [{"Id": "t", **dead_letters, **target}]
    return {"Type": "AWS::Events::Rule", "Properties": {"State": "ENABLED", "Targets": targets, **properties}}


def triggered(**rules: JsonObject) -> JsonObject:
    """Return the pipeline with rules, a role that may start it, and a queue for lost events."""
    statement = allow("sqs:SendMessage", arn("Lost"), Principal={"Service": "events.amazonaws.com"})
    policy: JsonObject = {"Version": "2012-10-17", "Statement": [statement]}
    permission: JsonObject = {"Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com"}
    return {
        **pipeline(ECHO, allow("sqs:SendMessage", arn("Lost"))),
        "Lost": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "lost"}},
        "LostPolicy": {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {"Queues": [ref("Lost")], "PolicyDocument": policy},
        },
        "StartRole": role("events", allow("states:StartExecution", ref("Machine"))),
        "EchoPermission": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {**permission, "FunctionName": arn("Echo")},
        },
        **rules,
    }


START_MACHINE: JsonObject = {"Arn": ref("Machine"), "RoleArn": arn("StartRole")}


def test_an_object_that_matches_starts_the_machine_with_the_event_as_it_is(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED)))
    deployed.put("incoming/support/train.jsonl")
    [event] = [as_object(item, "event") for item in deployed.inputs()]
    detail = as_object(event["detail"], "detail")
    stored = as_object(detail["object"], "object")
    s3 = deployed.aws.session().client("s3")
    head = s3.head_object(Bucket=deployed.storage["BucketName"], Key="incoming/support/train.jsonl")

    assert (event["source"], event["detail-type"], event["time"]) == (
        "aws.s3",
        "Object Created",
        "2025-01-18T09:00:00Z",
    )
    assert detail["bucket"] == {"name": deployed.storage["BucketName"]}
    assert detail["reason"] == "PutObject"
    assert stored["size"] == 4
    assert stored["etag"] == head["ETag"].strip('"')
    assert stored["version-id"] == head["VersionId"]
    assert not deployed.aws.problems


def test_events_have_ids_of_their_own_and_growing_sequencers(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED)))
    for dataset in ("a", "b"):
        deployed.put(f"incoming/{dataset}/train.jsonl")
    events = [as_object(event, "event") for event in deployed.inputs()]
    sequencers = [str(as_object(as_object(event["detail"], "d")["object"], "o")["sequencer"]) for event in events]

    assert len({str(event["id"]) for event in events}) == 2
    assert sequencers == sorted(set(sequencers))


def test_a_multipart_upload_makes_one_event_when_it_completes(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED)))
    s3, bucket = deployed.aws.session().client("s3"), deployed.storage["BucketName"]
    key = "incoming/support/train.jsonl"
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"text")
    deployed.aws.wait_until_idle(60)
    assert not deployed.inputs()
    s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    deployed.aws.wait_until_idle(60)
    [event] = [as_object(item, "event") for item in deployed.inputs()]
    assert as_object(event["detail"], "detail")["reason"] == "CompleteMultipartUpload"


@pytest.mark.parametrize(
    ("bucket", "key"),
    [("BucketName", "incoming/support/test.jsonl"), ("QuietName", "incoming/support/train.jsonl")],
)
def test_other_objects_and_buckets_without_events_start_nothing(deploy: Deploy, bucket: str, key: str) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED)))
    deployed.put(key, bucket)
    assert not deployed.delivered


def test_tagging_deleting_and_reading_make_no_event(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED)))
    deployed.put("incoming/support/train.jsonl")
    s3 = deployed.aws.session().client("s3")
    bucket, key = deployed.storage["BucketName"], "incoming/support/train.jsonl"
    s3.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.get_object(Bucket=bucket, Key=key)
    s3.delete_object(Bucket=bucket, Key=key)
    deployed.aws.wait_until_idle(60)
    assert len(deployed.delivered) == 1


def test_an_event_can_be_delivered_twice(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED)))
    deployed.put("incoming/support/train.jsonl")
    deployed.aws.publish(as_object(deployed.inputs()[0], "event"))
    deployed.aws.wait_until_idle(60)
    first, second = deployed.inputs()
    assert first == second


def test_a_rule_without_permission_to_start_is_a_problem_and_a_dead_letter(deploy: Deploy) -> None:
    resources = triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED))
    resources["StartRole"] = role("events", allow("states:StartExecution", "arn:aws:states:us-east-1:1:stateMachine:x"))
    deployed = deploy(resources)
    deployed.put("incoming/support/train.jsonl")

    assert not deployed.inputs()
    assert "states:StartExecution" in deployed.aws.problems[0]
    [event] = deployed.lost()
    assert as_object(event, "event")["source"] == "aws.s3"


def test_a_function_without_the_rules_permission_is_a_problem_and_a_dead_letter(deploy: Deploy) -> None:
    resources = triggered(Rule=rule({"Arn": arn("Echo")}, EventPattern=DROPPED))
    del resources["EchoPermission"]
    deployed = deploy(resources)
    deployed.put("incoming/support/train.jsonl")
    assert not deployed.faults.payloads
    assert "does not let the rule call it" in deployed.aws.problems[0]
    assert len(deployed.lost()) == 1


def test_a_queue_whose_policy_does_not_name_the_rule_loses_the_event_and_says_so(deploy: Deploy) -> None:
    resources = triggered(Rule=rule({"Arn": arn("Echo")}, EventPattern=DROPPED))
    del resources["EchoPermission"]
    del resources["LostPolicy"]
    deployed = deploy(resources)
    deployed.put("incoming/support/train.jsonl")
    assert "the event is lost" in deployed.aws.problems[1]


def test_a_function_that_fails_is_called_three_times_and_then_given_up_to_its_queue(deploy: Deploy) -> None:
    resources = triggered(Rule=rule({"Arn": arn("Echo")}, EventPattern=DROPPED))
    resources["Echo"] = function("fail", DeadLetterConfig={"TargetArn": arn("Lost")})
    deployed = deploy(resources)
    deployed.put("incoming/support/train.jsonl")

    assert len(deployed.faults.payloads) == 3
    assert deployed.aws.clock.now() == START + timedelta(seconds=60 + 120)
    assert "ValueError" in deployed.aws.problems[0]
    assert len(deployed.lost()) == 1


def test_a_throttled_asynchronous_call_is_repeated(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule({"Arn": arn("Echo")}, EventPattern=DROPPED)))
    deployed.faults.fail.append(Throttle())
    deployed.put("incoming/support/train.jsonl")
    assert len(deployed.faults.payloads) == 2
    assert not deployed.aws.problems


def test_a_schedule_calls_its_function_every_fifteen_virtual_minutes(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule({"Arn": arn("Echo")}, ScheduleExpression="rate(15 minutes)")))
    deployed.aws.wait_until_idle(60)
    assert not deployed.faults.payloads
    deployed.aws.clock.advance(3600)
    deployed.aws.wait_until_idle(60)
    times = [as_object(payload, "event")["time"] for payload in deployed.faults.payloads]
    assert times == [f"2025-01-18T{hour}:00Z" for hour in ("09:15", "09:30", "09:45", "10:00")]


def test_a_disabled_rule_does_nothing(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED, State="DISABLED")))
    deployed.put("incoming/support/train.jsonl")
    assert not deployed.delivered


def test_a_rule_can_be_disabled_and_enabled_by_its_target(deploy: Deploy) -> None:
    deployed = deploy(triggered(Rule=rule(START_MACHINE, EventPattern=DROPPED)))
    client = deployed.aws.session().client("events")
    [machine] = deployed.aws.deployed.machines
    [name] = client.list_rule_names_by_target(TargetArn=machine)["RuleNames"]
    for switch, state, executions in (
        (client.disable_rule, "DISABLED", 0),
        (client.enable_rule, "ENABLED", 1),
    ):
        switch(Name=name)
        assert client.describe_rule(Name=name)["State"] == state
        deployed.put("incoming/support/train.jsonl")
        assert len(deployed.inputs()) == executions


def test_the_end_of_an_execution_is_an_event(deploy: Deploy) -> None:
    ended: JsonObject = {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"status": ["FAILED"], "stateMachineArn": [ref("Machine")]},
    }
    start, tell = rule(START_MACHINE, EventPattern=DROPPED), rule({"Arn": arn("Lost")}, EventPattern=ended)
    deployed = deploy(triggered(Start=start, Ended=tell))
    deployed.faults.fail.append(FunctionFault("Broken", "on purpose"))
    deployed.put("incoming/support/train.jsonl")

    [event] = [as_object(item, "event") for item in deployed.lost()]
    execution = deployed.aws.executions()[0]
    assert event["resources"] == [execution.arn]
    assert as_object(event["detail"], "detail")["error"] == "Broken"


EVENT: JsonObject = {
    "source": "aws.s3",
    "n": 5,
    "none": None,
    "detail": {"key": "incoming/a/b/train.jsonl", "tags": ["x", "y"]},
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"source": ["aws.s3", "aws.states"]}, True),
        ({"source": ["aws.states"]}, False),
        ({"missing": ["x"]}, False),
        ({"none": [None]}, True),
        ({"n": ["5"]}, False),
        ({"detail": {"key": [{"prefix": "incoming/"}]}}, True),
        ({"detail": {"key": [{"prefix": ["other/", "incoming/"]}]}}, True),
        ({"detail": {"key": [{"suffix": ".jsonl"}]}}, True),
        ({"detail": {"key": [{"suffix": ".json"}]}}, False),
        ({"detail": {"key": [{"wildcard": "incoming/*/train.jsonl"}]}}, True),
        ({"detail": {"key": [{"wildcard": "incoming/*/test.jsonl"}]}}, False),
        ({"detail": {"key": [{"wildcard": "incoming/?/*"}]}}, False),
        ({"detail": {"key": [{"anything-but": {"suffix": ".jsonl"}}]}}, False),
        ({"detail": {"key": [{"anything-but": ["a", "b"]}]}}, True),
        ({"detail": {"key": [{"equals-ignore-case": "INCOMING/a/b/train.jsonl"}]}}, True),
        ({"detail": {"tags": ["y"]}}, True),
        ({"detail": {"tags": ["z"]}}, False),
        ({"detail": {"key": [{"exists": True}], "other": [{"exists": False}]}}, True),
        ({"missing": [{"exists": True}]}, False),
        ({"n": [{"numeric": [">", 4, "<=", 5]}]}, True),
        ({"n": [{"numeric": [">", 5]}]}, False),
        ({"$or": [{"source": ["aws.x"]}, {"n": [5]}]}, True),
        ({"$or": [{"source": ["aws.x"]}, {"n": [6]}]}, False),
        ({"source": {"deeper": ["x"]}}, False),
    ],
)
def test_a_pattern_matches_as_eventbridge_documents_it(pattern: JsonObject, expected: bool) -> None:  # noqa: FBT001  a case's value
    assert matches(pattern, EVENT) is expected
    assert not list(pattern_problems(pattern))


@given(st.text(min_size=1))
def test_any_text_matches_itself_and_its_prefix(text: str) -> None:
    assert matches({"key": [text]}, {"key": text})
    assert matches({"key": [{"prefix": text[:1]}]}, {"key": text})


def test_an_unknown_matcher_is_named() -> None:
    assert list(pattern_problems({"detail": {"ip": [{"cidr": "10.0.0.0/8"}]}})) == ["event pattern matcher cidr"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, EVENT),
        ({"Input": '{"a": 1}'}, {"a": 1}),
        ({"InputPath": "$.detail.key"}, "incoming/a/b/train.jsonl"),
        (
            {
                "InputTransformer": {
                    "InputPathsMap": {"key": "$.detail.key", "tags": "$.detail.tags"},
                    "InputTemplate": '{"text": "<key>", "all": <tags>}',
                },
            },
            {"text": "incoming/a/b/train.jsonl", "all": ["x", "y"]},
        ),
    ],
)
def test_a_target_gets_its_input(settings: JsonObject, expected: Json) -> None:
    assert target_input(settings, EVENT) == expected
