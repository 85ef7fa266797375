"""Copies of what is stored, for those who ask for them: tables in a backup vault, objects in another Region."""

from collections.abc import Mapping, Sequence
from typing import cast

from aws_cdk import Stack
from aws_cdk import aws_backup as backup
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.config import Replication
from stacks.nag import acknowledge_wildcards

_KEPT_DAYS = 35  # as long as point-in-time recovery reaches back
_NAMED_LATER = "Copies and objects are named when they are made."


def back_up(scope: Construct, vault: str, tables: Sequence[dynamodb.Table], key: kms.IKey) -> None:
    """Copy `tables` into the backup vault named `vault` every day, and keep each copy for 35 days."""
    stack = Stack.of(scope)
    plan = backup.CfnBackupPlan(
        scope,
        "BackupPlan",
        backup_plan=backup.CfnBackupPlan.BackupPlanResourceTypeProperty(
            backup_plan_name=stack.stack_name,
            backup_plan_rule=[
                backup.CfnBackupPlan.BackupRuleResourceTypeProperty(
                    rule_name="Daily",
                    target_backup_vault=vault,
                    schedule_expression="cron(0 5 ? * * *)",
                    lifecycle=backup.CfnBackupPlan.LifecycleResourceTypeProperty(delete_after_days=_KEPT_DAYS),
                )
            ],
        ),
    )
    arns = [table.table_arn for table in tables]
    # AWS Backup guide, "Customer managed policies": the statements for DynamoDB, the vault and the key
    statements = [
        _allow(["dynamodb:DescribeTable", "dynamodb:CreateBackup", "dynamodb:StartAwsBackupJob"], arns),
        _allow(["dynamodb:ListTagsOfResource"], arns),
        _allow(["dynamodb:DescribeBackup", "dynamodb:DeleteBackup"], [f"{arn}/backup/*" for arn in arns]),
        _allow(
            ["backup:DescribeBackupVault", "backup:CopyIntoBackupVault"],
            [stack.format_arn(service="backup", resource=f"backup-vault:{vault}")],
        ),
        _allow(["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn], _via(f"dynamodb.{stack.region}")),
    ]
    role = _role(scope, "Backup", "backup", "Copies the tables into the backup vault", statements)
    backup.CfnBackupSelection(
        scope,
        "BackupSelection",
        backup_plan_id=plan.ref,
        backup_selection=backup.CfnBackupSelection.BackupSelectionResourceTypeProperty(
            iam_role_arn=role.role_arn, selection_name="Tables", resources=arns
        ),
    )


def replicate(scope: Construct, target: Replication, buckets: Sequence[s3.Bucket], key: kms.IKey) -> None:
    """Let S3 copy every new object of `buckets` into the bucket of `target`, encrypted with the key there."""
    stack = Stack.of(scope)
    # S3 guide, "Setting up permissions for live replication" and "Replicating encrypted objects"
    statements = [
        _allow(["s3:GetReplicationConfiguration", "s3:ListBucket"], [bucket.bucket_arn for bucket in buckets]),
        _allow(
            ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"],
            [bucket.arn_for_objects("*") for bucket in buckets],
        ),
        _allow(["s3:ReplicateObject", "s3:ReplicateTags"], [f"{target.bucket_arn}/*"]),
        _allow(["kms:Decrypt"], [key.key_arn], _via(f"s3.{stack.region}")),
        _allow(["kms:Encrypt", "kms:GenerateDataKey"], [target.key_arn], _via(f"s3.{target.key_arn.split(':')[3]}")),
    ]
    role = _role(scope, "Replication", "s3", "Copies new objects into a bucket of another Region", statements)
    enabled = s3.CfnBucket.SseKmsEncryptedObjectsProperty(status="Enabled")
    rule = s3.CfnBucket.ReplicationRuleProperty(
        id="Everything",
        priority=0,
        status="Enabled",
        filter=s3.CfnBucket.ReplicationRuleFilterProperty(prefix=""),
        # What is deleted here stays there
        delete_marker_replication=s3.CfnBucket.DeleteMarkerReplicationProperty(status="Disabled"),
        source_selection_criteria=s3.CfnBucket.SourceSelectionCriteriaProperty(sse_kms_encrypted_objects=enabled),
        destination=s3.CfnBucket.ReplicationDestinationProperty(
            bucket=target.bucket_arn,
            encryption_configuration=s3.CfnBucket.EncryptionConfigurationProperty(replica_kms_key_id=target.key_arn),
        ),
    )
    for bucket in buckets:
        resource = cast("s3.CfnBucket", bucket.node.default_child)
        resource.replication_configuration = s3.CfnBucket.ReplicationConfigurationProperty(
            role=role.role_arn, rules=[rule]
        )


def _role(
    scope: Construct, name: str, service: str, description: str, statements: Sequence[iam.PolicyStatement]
) -> iam.Role:
    """Return a role for one service. Neither service documents condition keys for the roles that it assumes.

    Whoever hands a role over to them needs iam:PassRole on it, which no other account can have.
    """
    role = iam.Role(
        scope, f"{name}Role", description=description, assumed_by=iam.ServicePrincipal(f"{service}.amazonaws.com")
    )
    policy = iam.ManagedPolicy(scope, f"{name}Permissions", roles=[role], statements=list(statements))
    acknowledge_wildcards(
        policy, statements, reason=_NAMED_LATER, limits="the tables and buckets of this deployment and their copies."
    )
    return role


def _allow(
    actions: list[str], resources: list[str], conditions: Mapping[str, Mapping[str, str]] | None = None
) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)


def _via(service: str) -> dict[str, dict[str, str]]:
    return {"StringEquals": {"kms:ViaService": f"{service}.amazonaws.com"}}
