"""The rules that every synthesis checks, and the way a finding is acknowledged."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aws_cdk import Acknowledgment, App, CloudFormationValidatePlugin, Stack, Validations
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks, NIST80053R5Checks, ServerlessChecks
from constructs import IConstruct


def attach_packs(app: App) -> None:
    """Make `app.synth()` raise when a resource breaks a rule of AwsSolutions or Serverless that nobody acknowledged.

    The context key `validateTemplates` adds CDK's own validation of templates. Its engine takes as long to start as all
    the rest of a synthesis, so the tests ask for it and a person who only deploys does not wait for it. The key
    `nist80053r5` adds the pack NIST 800-53 R5 in the same way.
    """
    if app.node.try_get_context("validateTemplates"):
        Validations.of(app).add_plugins(CloudFormationValidatePlugin())
    Validations.of(app).add_plugins(AwsSolutionsChecks(app), ServerlessChecks(app))
    if app.node.try_get_context("nist80053r5"):
        Validations.of(app).add_plugins(NIST80053R5Checks(app))


@dataclass(frozen=True, kw_only=True)
class Unset:
    """A rule that a setting satisfies, and why the setting is off until somebody wants it."""

    rule: str
    reason: str
    limits: str


UNSET: Mapping[str, Unset] = {
    "reservedConcurrency": Unset(
        rule="NIST.800.53.R5-LambdaConcurrency",
        reason="What functions reserve is taken from all others of the account, and a new account may run 10 calls at "
        "once: the first deployment would fail.",
        limits="the state machine, which runs four shards of an evaluation at once, and the account's own limit.",
    ),
    "vpc": Unset(
        rule="NIST.800.53.R5-LambdaInsideVPC",
        reason="A network of one's own with endpoints of the services bills by the hour, and the pipeline calls AWS "
        "alone.",
        limits="TLS on every call, and roles that reach the resources of this deployment only.",
    ),
    "backupVault": Unset(
        rule="NIST.800.53.R5-DynamoDBInBackupPlan",
        reason="Copies in a backup vault bill beside those of point-in-time recovery.",
        limits="point-in-time recovery of the last 35 days and deletion protection.",
    ),
    "replication": Unset(
        rule="NIST.800.53.R5-S3BucketReplicationEnabled",
        reason="A copy of every object in another Region bills its transfer and storage, and data may have to stay in "
        "its Region.",
        limits="versions of every object, kept when they are overwritten or deleted.",
    ),
}


def acknowledge_unset(construct: IConstruct, setting: str) -> None:
    """Acknowledge the rule that `setting`, which is off, would satisfy for `construct`."""
    unset = UNSET[setting]
    reason = f"{unset.reason} Kept with the setting {setting}."
    acknowledge(construct, unset.rule, reason=reason, limits=unset.limits)


def acknowledge(construct: IConstruct, *rules: str, reason: str, limits: str) -> None:
    """Acknowledge `rules`, such as `AwsSolutions-S1`, for `construct` alone.

    `reason` says why this resource breaks the rule and `limits` what bounds the harm; both go into the validation
    report, which lists an acknowledgment only when the id carries the name of its pack.
    """
    text = f"{reason} Limited by: {limits}"
    acknowledged = [Acknowledgment(id=f"{rule.partition('-')[0]}::{rule}", reason=text) for rule in rules]
    Validations.of(construct).acknowledge(*acknowledged)


def acknowledge_wildcards(
    construct: IConstruct, statements: Iterable[iam.PolicyStatement], *, reason: str, limits: str
) -> None:
    """Acknowledge exactly the wildcards that `statements` of the role or policy `construct` hold, one finding each.

    A resource of another stack has to come from StorageStack.exports: a reference across stacks turns into an import
    only later, and the finding's name with it.
    """
    stack = Stack.of(construct)
    documents = stack.resolve([statement.to_statement_json() for statement in statements])
    resources = {_flatten(resource) for document in documents for resource in _listed(document["Resource"])}
    actions = {str(action) for document in documents for action in _listed(document["Action"])}
    findings = sorted({f"Resource::{name}" for name in resources} | {f"Action::{name}" for name in actions})
    rules = (f"AwsSolutions-IAM5[{finding}]" for finding in findings if "*" in finding)
    acknowledge(construct, *rules, reason=reason, limits=limits)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _flatten(value: object) -> str:
    """Return `value` the way cdk-nag writes a CloudFormation reference into the name of a finding."""
    match value:
        case str():
            return value.replace("${", "<").replace("}", ">")
        case {"Fn::Join": [str(delimiter), list(items)]}:
            return delimiter.join(map(_flatten, items))
        case {"Fn::GetAtt": [str(resource), str(attribute)]}:
            return f"<{resource}.{attribute}>"
        case {"Fn::ImportValue": str(name)}:
            return name
        case {"Ref": str(name)}:
            return f"<{name}>"
        case _:
            return json.dumps(value, separators=(",", ":"))
