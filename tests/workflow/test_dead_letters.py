"""The dead-letter queue is redriven as docs/operations.md says: what nobody could handle is done, and done once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rehearsal.embedded.faults import FunctionFault
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

pytestmark = pytest.mark.exhaustive
UNUSED = "No run will use a file you dropped"


class Operator:
    """Somebody who goes through the section of the runbook, one message at a time."""

    def __init__(self, pipeline: Pipeline) -> None:
        session = pipeline.aws.session()
        pages = session.client("cloudformation").get_paginator("list_stack_resources")
        found = [
            r for page in pages.paginate(StackName="Customization-dev-Pipeline") for r in page["StackResourceSummaries"]
        ]
        [self._queue] = [r["PhysicalResourceId"] for r in found if r["ResourceType"] == "AWS::SQS::Queue"]
        self._pipeline, self._queues = pipeline, session.client("sqs")
        self._states, self._functions = session.client("stepfunctions"), session.client("lambda")

    def receive(self) -> "MessageTypeDef | None":
        """Return the next message with its attributes, or None."""
        found = self._queues.receive_message(
            QueueUrl=self._queue, MessageAttributeNames=["All"], VisibilityTimeout=300
        ).get("Messages", [])
        return found[0] if found else None

    def redrive(self, message: "MessageTypeDef") -> None:
        """Start what TARGET_ARN names with the event, delete the message and wait for the end."""
        target, event = attribute(message, "TARGET_ARN"), message["Body"]
        if target == self._pipeline.outputs["StateMachineArn"]:
            self._states.start_execution(stateMachineArn=target, input=event)
        else:
            self._functions.invoke(FunctionName=target, InvocationType="Event", Payload=event.encode())
        self._queues.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        self._pipeline.finish()

    def delete(self, message: "MessageTypeDef") -> None:
        """Delete a message that needs no redrive."""
        self._queues.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])


def attribute(message: "MessageTypeDef", name: str) -> str:
    return message["MessageAttributes"][name]["StringValue"]


@contextmanager
def undeliverable(pipeline: Pipeline) -> Iterator[None]:
    """Let nobody start the machine by a rule, nor call a function by one, and take the complaints for granted."""
    deployed, iam = pipeline.aws.deployed, pipeline.aws.session().client("iam")
    [role] = {target.role_arn for rule in deployed.rules.values() for target in rule.targets if target.role_arn}
    name = role.rpartition("/")[2]
    policies = [item["PolicyArn"] for item in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]]
    permissions = [*deployed.permissions]
    for policy in policies:
        iam.detach_role_policy(RoleName=name, PolicyArn=policy)
    deployed.permissions.clear()
    try:
        yield
        pipeline.finish()
    finally:
        deployed.permissions += permissions
        for policy in policies:
            iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    assert pipeline.aws.problems
    assert [problem for problem in pipeline.aws.problems if "could not deliver to" not in problem] == []
    pipeline.aws.problems.clear()


def test_drops_whose_run_could_not_be_started_are_redriven_one_by_one_and_paid_for_once(pipeline: Pipeline) -> None:
    operator = Operator(pipeline)
    with undeliverable(pipeline):
        pipeline.drop(pipeline.dataset, pipeline.folder())
    assert pipeline.executions() == []
    redriven = 0
    while (message := operator.receive()) is not None:
        if attribute(message, "TARGET_ARN") == pipeline.outputs["StateMachineArn"]:
            assert "states:StartExecution" in attribute(message, "ERROR_MESSAGE")
            redriven += 1
        operator.redrive(message)
    assert redriven == 2, "train.jsonl and run.json each start the machine"
    assert [row["state"] for row in pipeline.runs()] == ["SUCCEEDED"]
    assert len(pipeline.jobs()) == 1
    assert UNUSED not in pipeline.subjects()


def test_a_call_that_a_rule_could_not_make_is_redriven_by_calling_the_function(pipeline: Pipeline) -> None:
    operator = Operator(pipeline)
    with undeliverable(pipeline):
        pipeline.put(f"incoming/{pipeline.dataset}/data.csv", b"a,b")
    assert pipeline.subjects() == []
    message = operator.receive()
    assert message is not None
    assert "ExplainUnused" in attribute(message, "RULE_ARN")  # names are cut
    operator.redrive(message)
    assert pipeline.subjects() == [UNUSED]
    assert operator.receive() is None


def test_what_a_function_failed_on_names_no_target_but_says_why_and_needs_no_redrive(pipeline: Pipeline) -> None:
    operator = Operator(pipeline)
    broken = FunctionFault("Broken", "on purpose")
    pipeline.function_faults.strike("explain_unused_upload", before=broken, times=3)
    pipeline.put(f"incoming/{pipeline.dataset}/data.csv", b"a,b")
    pipeline.pass_time(minutes=20)
    message = operator.receive()
    assert message is not None
    assert "TARGET_ARN" not in message["MessageAttributes"]
    assert "on purpose" in attribute(message, "ErrorMessage")
    assert json.loads(message["Body"])["detail"]["object"]["key"] == f"incoming/{pipeline.dataset}/data.csv"
    operator.delete(message)
    assert operator.receive() is None
    pipeline.aws.problems.clear()
