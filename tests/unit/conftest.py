"""A gateway whose S3, DynamoDB, SNS and SSM are moto's and whose Bedrock and Step Functions are in memory."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from customization.inference import InferenceSettings
from customization.runs import Call, EvaluationPlan, Plan, Stage
from tests.unit.fakes import EXECUTION, NOW, SETTINGS, BedrockInMemory, GatewayInMemory


@pytest.fixture
def bedrock() -> BedrockInMemory:
    return BedrockInMemory()


@pytest.fixture
def gateway(bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayInMemory]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        for bucket in ("data", "artifacts"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        dynamodb = boto3.client("dynamodb", region_name="us-east-1")
        for table, key in (("runs", "runId"), ("leases", "resourceName")):
            dynamodb.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        made = GatewayInMemory(SETTINGS)
        made.__dict__["bedrock"] = bedrock
        yield made


@pytest.fixture
def call() -> Call:
    return Call(now=NOW, execution_arn=EXECUTION, run_id="support-0123456789", attempt=1)


@pytest.fixture
def plan(call: Call) -> Plan:
    return Plan(
        run_id=call.run_id,
        attempt=1,
        execution_arn=EXECUTION,
        started_at=NOW,
        action="run",
        dataset="support",
        name="",
        region="us-east-1",
        language="en",
        base_model_identifier="amazon.nova-micro-v1:0:128k",
        stages=(Stage("FINE_TUNING", {"epochCount": "2"}, "aaaaaaaaaa"),),
        files={},
        serving_mode="on-demand",
        model_units=1,
        keep=False,
        promote="never",
        keep_model="if-better",
        inference=InferenceSettings(),
        evaluation=EvaluationPlan(500, 0, None, None),
        subset=None,
        field_mapping={},
        budget_usd=20,
        accept_unknown_prices=(),
        force=False,
        tags={},
        warnings=(),
    )


@pytest.fixture
def claimed(gateway: GatewayInMemory, call: Call) -> GatewayInMemory:
    """The gateway after the run has been claimed by this execution."""
    gateway.runs.put(
        {
            "runId": call.run_id,
            "dataset": "support",
            "executionArn": EXECUTION,
            "attempt": 1,
            "state": "RUNNING",
            "startedAt": NOW.isoformat(),
        }
    )
    return gateway
