"""Over all stacks, as cdk.json has them and with everything switched on: whom policies trust, and how far they go."""

from collections.abc import Iterator

import pytest

from customization.json_types import Json, JsonObject, as_object
from tests.infra.synthesis import at, listed, resources
from tests.infra.test_permissions import WATCHING, WITHOUT_RESOURCE

Statement = tuple[str, JsonObject]
# A role can be handed to a service inside its own account only; a condition on a key that a service does not send would
# shut the service out
TRUSTED_WITHOUT_CONDITION = {
    "backup.amazonaws.com": "AWS Backup guide: names no key that is sent when the service assumes a role",
    "s3.amazonaws.com": 'Amazon S3 guide, "Setting up permissions for live replication": its trust has no condition',
}
# Keys that say for whom a service works (IAM guide, "The confused deputy problem"), and CloudWatch Logs' own
# (CloudWatch Logs guide, "Encrypt log data using AWS KMS")
FOR_WHOM = {"aws:SourceAccount", "aws:SourceArn", "kms:EncryptionContext:aws:logs:arn"}
# IAM knows no resource for these (Service Authorization Reference); the last are needed with the setting vpc alone
ON_EVERYTHING = {
    *WITHOUT_RESOURCE,
    *WATCHING,
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcs",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
}
RESOURCE_POLICIES = {
    "AWS::KMS::Key": "KeyPolicy",
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
    "AWS::SQS::QueuePolicy": "PolicyDocument",
}


@pytest.fixture(scope="module", params=["as cdk.json has it", "with everything switched on"])
def stacks(
    request: pytest.FixtureRequest, templates: dict[str, JsonObject], governed: dict[str, JsonObject]
) -> dict[str, JsonObject]:
    return templates if request.param == "as cdk.json has it" else governed


def _of(stacks: dict[str, JsonObject], kind: str, document: str) -> Iterator[Statement]:
    for template in stacks.values():
        for name, resource in resources(template, kind).items():
            for statement in listed(at(resource, "Properties", document, "Statement")):
                yield name, as_object(statement, name)


def _service(statement: JsonObject) -> Json:
    principal = statement["Principal"]
    return principal.get("Service") if isinstance(principal, dict) else None


def _keys(statement: JsonObject) -> set[str]:
    conditions = as_object(statement.get("Condition", {}), "Condition")
    return {key for operator, keys in conditions.items() for key in as_object(keys, operator)}


def test_a_role_trusts_one_service_and_for_this_account_alone(stacks: dict[str, JsonObject]) -> None:
    trusted = list(_of(stacks, "AWS::IAM::Role", "AssumeRolePolicyDocument"))
    roles = [name for template in stacks.values() for name in resources(template, "AWS::IAM::Role")]
    assert sorted(name for name, _ in trusted) == sorted(roles)
    assert len(roles) > 20
    for name, statement in trusted:
        assert isinstance(_service(statement), str), name
        assert statement["Action"] == "sts:AssumeRole", name
        if _service(statement) not in TRUSTED_WITHOUT_CONDITION:
            assert "aws:SourceAccount" in _keys(statement), name


def test_no_service_is_let_in_without_saying_for_whom_it_works(stacks: dict[str, JsonObject]) -> None:
    for kind, document in RESOURCE_POLICIES.items():
        for name, statement in _of(stacks, kind, document):
            if statement["Effect"] == "Allow" and _service(statement):
                assert _keys(statement) & FOR_WHOM, (name, statement)


def test_no_policy_lets_everybody_in(stacks: dict[str, JsonObject]) -> None:
    for kind, document in RESOURCE_POLICIES.items():
        for name, statement in _of(stacks, kind, document):
            if statement["Effect"] == "Allow":
                assert "*" not in str(statement["Principal"]), name


def test_a_function_may_be_called_by_a_rule_of_this_stack_and_by_nothing_else(stacks: dict[str, JsonObject]) -> None:
    permissions = resources(stacks["pipeline"], "AWS::Lambda::Permission")
    assert permissions
    rules = resources(stacks["pipeline"], "AWS::Events::Rule")
    for name, permission in permissions.items():
        assert at(permission, "Properties", "Principal") == "events.amazonaws.com", name
        assert at(permission, "Properties", "SourceArn", "Fn::GetAtt", 0) in rules, name


def test_a_star_stands_for_all_resources_only_where_iam_knows_none(stacks: dict[str, JsonObject]) -> None:
    for name, statement in _of(stacks, "AWS::IAM::ManagedPolicy", "PolicyDocument"):
        actions = set(map(str, listed(statement["Action"])))
        assert not [action for action in actions if "*" in action], name
        if "*" in listed(statement["Resource"]):
            assert actions <= ON_EVERYTHING, name


def test_one_role_alone_can_be_passed_and_to_bedrock_alone(stacks: dict[str, JsonObject]) -> None:
    passing = [
        statement
        for _, statement in _of(stacks, "AWS::IAM::ManagedPolicy", "PolicyDocument")
        if any(str(action).startswith("iam:") for action in listed(statement["Action"]))
    ]
    (statement,) = passing
    assert statement["Action"] == "iam:PassRole"
    assert "CustomizationRole" in str(at(statement, "Resource", "Fn::ImportValue"))
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}


def test_a_key_is_used_through_a_service_and_never_directly(stacks: dict[str, JsonObject]) -> None:
    for name, statement in _of(stacks, "AWS::IAM::ManagedPolicy", "PolicyDocument"):
        actions = list(map(str, listed(statement["Action"])))
        if any(action.startswith("kms:") for action in actions):
            assert all(action.startswith("kms:") for action in actions), name
            assert _keys(statement) == {"kms:ViaService"}, name
