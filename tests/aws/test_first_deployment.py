"""The checklist of docs/first-deployment.md after `make deploy`, step by step: each test needs those before it."""

import json
from pathlib import Path

import pytest

from customization import doctor, leases
from customization.history import RunSummary, read_history
from customization.teardown import Deployment
from tests.aws.conftest import OnAws, wait_until

pytestmark = pytest.mark.aws

ROOT = Path(__file__).parents[2]
DATASET = "first-deployment"
SMALLEST = json.loads((ROOT / "samples" / "inputs" / "support-ja-smallest.json").read_text()) | {"dataset": DATASET}
# What each managed policy is for: an action, and a part of what it is allowed on
POLICIES = {
    "DataContributor": ("s3:PutObject", "/incoming/*"),
    "ReportReader": ("s3:GetObject", "/report.html"),
    "RunOperator": ("states:StartExecution", ":stateMachine:"),
    "InvokeServedModel": ("bedrock:InvokeModel", ":custom-model-deployment/"),
}


def ended_runs(on_aws: OnAws) -> dict[str, RunSummary]:
    return {run.state: run for run in read_history(on_aws.gateway, DATASET)}


def test_the_doctor_misses_nothing() -> None:
    assert doctor.main([]) == doctor.DONE


def test_the_outputs_name_what_is_there(on_aws: OnAws) -> None:
    outputs, session = on_aws.outputs, on_aws.session
    assert outputs["DropLocation"] == f"s3://{outputs['DataBucketName']}/incoming/"
    assert outputs["StateMachineUrl"].endswith(outputs["StateMachineArn"])
    machine = session.client("stepfunctions").describe_state_machine(stateMachineArn=outputs["StateMachineArn"])
    assert machine["status"] == "ACTIVE"
    topic = session.client("sns").get_topic_attributes(TopicArn=outputs["TopicArn"])["Attributes"]
    assert topic["TopicArn"] == outputs["TopicArn"]
    assert topic["KmsMasterKeyId"]
    iam = session.client("iam")
    for name, (action, resource) in POLICIES.items():
        policy = iam.get_policy(PolicyArn=outputs[f"{name}PolicyArn"])["Policy"]
        version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])["PolicyVersion"]
        statements = version["Document"]["Statement"]
        allowed = [part["Resource"] for part in statements if part["Effect"] == "Allow" and action in part["Action"]]
        assert resource in str(allowed), name


def test_an_empty_input_is_answered_with_what_lies_below_incoming(on_aws: OnAws) -> None:
    said = on_aws.start("{}")
    assert "dataset: missing in the input" in said
    assert f"s3://{on_aws.outputs['DataBucketName']}/incoming/" in said or '{"dataset": "' in said


def test_a_dropped_folder_that_asks_for_an_estimate_is_estimated_and_spends_nothing(on_aws: OnAws) -> None:
    s3, bucket = on_aws.session.client("s3"), on_aws.outputs["DataBucketName"]
    request = json.dumps({**SMALLEST, "action": "estimate", "expect": ["train.jsonl", "test.jsonl"]})
    s3.put_object(Bucket=bucket, Key=f"incoming/{DATASET}/run.json", Body=request.encode())
    for name in ("train.jsonl", "test.jsonl"):
        s3.upload_file(str(ROOT / "samples" / "support-ja" / name), bucket, f"incoming/{DATASET}/{name}")
    wait_until(lambda: "ESTIMATED" in ended_runs(on_aws), hours=0.5)
    s3.delete_object(Bucket=bucket, Key=f"incoming/{DATASET}/run.json")
    key = f"runs/{ended_runs(on_aws)['ESTIMATED'].run_id}/estimate.json"
    estimate = s3.get_object(Bucket=on_aws.outputs["ArtifactBucketName"], Key=key)["Body"].read()
    assert 0 < json.loads(estimate)["knownUsd"] < 1
    assert leases.open_leases(on_aws.gateway) == []


def test_the_smallest_run_ends_with_a_report(on_aws: OnAws) -> None:
    assert on_aws.start(json.dumps(SMALLEST)) == "SUCCEEDED"
    run = ended_runs(on_aws)["SUCCEEDED"]
    assert run.verdict in {"better", "worse", "inconclusive"}
    assert run.spent_usd is not None
    assert run.spent_usd < 1
    page = on_aws.session.client("s3").get_object(Bucket=on_aws.outputs["ArtifactBucketName"], Key=run.report_key)
    assert b"<html" in page["Body"].read()


def test_after_a_release_nothing_runs_or_bills(on_aws: OnAws) -> None:
    assert on_aws.start(json.dumps({"dataset": DATASET, "action": "release"})) == "SUCCEEDED"
    stacks = on_aws.operator.stacks(on_aws.chosen.stage)
    found = Deployment(on_aws.operator, on_aws.chosen.stage, stacks[0], stacks).what_is_open()
    assert found.lines() == []
