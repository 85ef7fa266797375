"""The rule packs bite where nobody acknowledged, and only there."""

import json
from pathlib import Path

import pytest
from aws_cdk import App, CfnResource, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns

from customization.json_types import Json, JsonObject, as_object
from stacks.nag import acknowledge, acknowledge_wildcards, attach_packs
from tests.infra.synthesis import ROOT, at, listed, read

PACKS = {"AwsSolutions", "Serverless"}
NIST = "NIST.800.53.R5"
# What a bad bucket, function, topic, table and role break, of each pack
BROKEN = {
    "AwsSolutions-S1",
    "AwsSolutions-S10",
    "AwsSolutions-L1",
    "AwsSolutions-SNS3",
    "AwsSolutions-DDB3",
    "AwsSolutions-IAM5[Action::*]",
    "Serverless-LambdaTracing",
    "Serverless-LambdaDLQ",
    "Serverless-LambdaLatestVersion",
    f"{NIST}-S3BucketPublicReadProhibited",
    f"{NIST}-S3BucketVersioningEnabled",
    f"{NIST}-S3DefaultEncryptionKMS",
    f"{NIST}-LambdaConcurrency",
    f"{NIST}-LambdaInsideVPC",
    f"{NIST}-SNSEncryptedKMS",
    f"{NIST}-DynamoDBInBackupPlan",
    f"{NIST}-DynamoDBPITREnabled",
    f"{NIST}-IAMNoInlinePolicy",
    f"{NIST}-IAMPolicyNoStatementsWithAdminAccess",
}


def build_app(outdir: Path, **context: Json) -> App:
    flags = as_object(read(ROOT / "cdk.json")["context"], "context")
    return App(outdir=str(outdir), context=flags | context, builtin_cloud_formation_validation=False)


@pytest.fixture
def app(tmp_path: Path) -> App:
    return build_app(tmp_path)


@pytest.fixture
def stack(app: App) -> Stack:
    return Stack(app, "Tried")


def problems_of(app: App) -> str:
    attach_packs(app)
    with pytest.raises(RuntimeError, match="ValidationFailed") as caught:
        app.synth()
    return str(caught.value)


def reports(folder: Path) -> dict[str, JsonObject]:
    found = [as_object(report, "report") for report in listed(read(folder / "validation-report.json")["pluginReports"])]
    return {str(report["pluginName"]): report for report in found}


def function_role(stack: Stack) -> iam.Role:
    return iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))


def test_bad_constructs_are_refused_by_every_pack(tmp_path: Path) -> None:
    app = build_app(tmp_path, nist80053r5="true")
    stack = Stack(app, "Tried")
    public = s3.BlockPublicAccess(block_public_policy=False)
    s3.Bucket(stack, "Bucket", public_read_access=True, block_public_access=public)
    code = lambda_.Code.from_inline("def handler(event, context): pass")
    lambda_.Function(stack, "Function", runtime=lambda_.Runtime.PYTHON_3_9, handler="index.handler", code=code)
    sns.Topic(stack, "Topic")
    dynamodb.Table(stack, "Table", partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING))
    everything = iam.PolicyStatement(actions=["*"], resources=["*"])
    function_role(stack).add_to_policy(everything)
    problems = problems_of(app)
    assert {rule for rule in BROKEN if rule not in problems} == set()
    assert set(reports(tmp_path)) >= {*PACKS, NIST}


def test_a_person_who_only_deploys_is_not_asked_for_nist(app: App, stack: Stack, tmp_path: Path) -> None:
    s3.Bucket(stack, "Bucket")
    assert NIST not in problems_of(app)
    assert NIST not in reports(tmp_path)


def test_a_template_that_cloudformation_would_refuse_is_refused_when_asked_for(tmp_path: Path) -> None:
    app = build_app(tmp_path, validateTemplates="true")
    CfnResource(Stack(app, "Tried"), "Topic", type="AWS::SNS::Topic", properties={"TopikName": "misspelt"})
    assert "TopikName" in problems_of(app)


def test_an_acknowledgment_is_for_one_construct_and_one_rule(app: App, stack: Stack) -> None:
    first, _ = (s3.Bucket(stack, id_, enforce_ssl=True) for id_ in ("First", "Second"))
    acknowledge(first, "AwsSolutions-S1", reason="Tried here.", limits="nothing.")
    problems = problems_of(app)
    assert "Tried/Second/Resource" in problems
    assert "Tried/First/Resource" not in problems


def test_an_acknowledgment_is_reported_with_its_reason_and_its_limits(app: App, stack: Stack, tmp_path: Path) -> None:
    bucket = s3.Bucket(stack, "Bucket", enforce_ssl=True)
    acknowledge(bucket, "AwsSolutions-S1", reason="Tried here.", limits="an empty bucket.")
    attach_packs(app)
    app.synth()
    (suppressed,) = listed(reports(tmp_path)["AwsSolutions"]["suppressedViolations"])
    assert at(suppressed, "reason") == "Tried here. Limited by: an empty bucket."


def test_acknowledged_wildcards_are_those_of_the_statement_and_no_others(app: App, stack: Stack) -> None:
    bucket = s3.Bucket(Stack(app, "Other"), "Bucket", enforce_ssl=True)
    acknowledge(bucket, "AwsSolutions-S1", reason="Tried elsewhere.", limits="nothing.")
    exported = Stack.of(bucket).export_value(bucket.bucket_arn)
    role = function_role(stack)
    known = iam.PolicyStatement(
        actions=["s3:GetObject", "s3:List*"],
        resources=[
            f"{exported}/runs/*",
            stack.format_arn(service="bedrock", resource="custom-model", resource_name="*"),
            f"{role.role_arn}/*",
        ],
    )
    role.add_to_policy(known)
    acknowledge_wildcards(role, [known], reason="Tried here.", limits="nothing.")
    role.add_to_policy(iam.PolicyStatement(actions=["s3:PutObject"], resources=[f"{exported}/other/*"]))
    problems = problems_of(app)
    assert problems.count("AwsSolutions-IAM5[") == 1
    assert "/other/*]" in problems


def test_the_stacks_of_this_project_leave_nothing_unacknowledged(
    assembly: Path, templates: dict[str, JsonObject]
) -> None:
    assert templates
    found = reports(assembly)
    assert set(found) >= {*PACKS, NIST}
    assert {name: report["violations"] for name, report in found.items()} == {name: [] for name in found}


def test_cloudformations_own_rules_find_nothing_in_the_templates_of_an_organization_with_all_settings(
    governed: dict[str, JsonObject], governed_settings: dict[str, Json], governed_assembly: Path
) -> None:
    assert governed_settings["validateTemplates"] == "true"
    assert governed
    assert set(reports(governed_assembly)) >= {*PACKS, NIST}
    assert [
        violation for report in reports(governed_assembly).values() for violation in listed(report["violations"])
    ] == []


def test_every_acknowledgment_of_this_project_says_why_and_what_limits_the_harm(
    assembly: Path, templates: dict[str, JsonObject]
) -> None:
    assert templates
    for pack in (*PACKS, NIST):
        for suppressed in _suppressed(reports(assembly)[pack]):
            reason, _, limits = str(at(suppressed, "reason")).partition(" Limited by: ")
            assert min(len(reason), len(limits)) > 20, json.dumps(suppressed)


def test_no_finding_is_acknowledged_for_a_whole_stack(assembly: Path, templates: dict[str, JsonObject]) -> None:
    assert templates
    for pack in (*PACKS, NIST):
        for suppressed in _suppressed(reports(assembly)[pack]):
            assert "/" in str(at(suppressed, "acknowledgedAt")), json.dumps(suppressed)


def _suppressed(report: JsonObject) -> list[Json]:
    return listed(report["suppressedViolations"])
