"""What outlives every deployment: the buckets, the tables, their key and the role that Bedrock trains with."""

from dataclasses import dataclass
from typing import cast

from aws_cdk import ArnFormat, CfnOutput, Duration, Environment, Fn, RemovalPolicy, Stack, Tags
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.config import DeploymentConfig
from stacks.nag import acknowledge, acknowledge_unset
from stacks.network import job_network
from stacks.permissions import Grant, managed_policy
from stacks.protection import back_up, replicate

# Bedrock guide, "Encryption of custom models": what the role of a job does with the key of the model
_MODEL_KEY_ACTIONS = ("kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant")
# What stays is found by it once the stack is gone; a test compares it with customization.leftovers
DEPLOYMENT_TAG = "customization-deployment"


@dataclass(frozen=True, kw_only=True)
class StorageExports:
    """Names and ARNs for policies and environments of the other stacks: each is an import, of no use in this stack."""

    data_bucket_name: str
    data_bucket_arn: str
    artifact_bucket_name: str
    artifact_bucket_arn: str
    key_arn: str
    runs_table_name: str
    runs_table_arn: str
    leases_table_name: str
    leases_table_arn: str
    customization_role_arn: str
    deployment_id: str


class StorageStack(Stack):
    """The stateful resources. Their construct ids are frozen: a new id would be a new, empty resource."""

    def __init__(self, scope: Construct, id_: str, *, config: DeploymentConfig) -> None:
        super().__init__(
            scope,
            id_,
            env=Environment(account=config.account, region=config.region),
            description="Bedrock model customization: data, results, state and key, kept when the stack is deleted",
            termination_protection=True,
        )
        self._customization_role = self._build_customization_role()
        self.key = self._build_key()
        self._access_logs = self._build_access_log_bucket()
        self.data_bucket = self._build_bucket("DataBucket", old_version_days=365, events=True)
        self.artifact_bucket = self._build_bucket("ArtifactBucket", old_version_days=30, events=False)
        self.runs_table = self._build_table("RunsTable", "runId")
        self.runs_table.add_global_secondary_index(
            index_name="byDataset",
            partition_key=dynamodb.Attribute(name="dataset", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="startedAt", type=dynamodb.AttributeType.STRING),
        )
        self.leases_table = self._build_table("LeasesTable", "resourceName")
        self._allow_customization(config)
        self._protect(config)
        # The first block of the UUID in arn:aws:cloudformation:region:account:stack/name/uuid: new with every new stack
        uuid = Fn.select(2, Fn.split("/", self.stack_id))
        deployment_id = Fn.select(0, Fn.split("-", uuid))
        Tags.of(self).add(DEPLOYMENT_TAG, f"{config.stage}-{deployment_id}")
        self.exports = self._export(deployment_id)

    def _build_customization_role(self) -> iam.Role:
        """Build the role of customization jobs with the trust of Bedrock's guide, "Create a service role"."""
        jobs = self.format_arn(service="bedrock", resource="model-customization-job", resource_name="*")
        return iam.Role(
            self,
            "CustomizationRole",
            description="Assumed by Bedrock's model customization jobs of this account",
            assumed_by=iam.ServicePrincipal(
                "bedrock.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": self.account}, "ArnEquals": {"aws:SourceArn": jobs}},
            ),
        )

    def _build_key(self) -> kms.Key:
        return kms.Key(
            self,
            "Key",
            description="Data, results, state, logs and messages of the model customization pipeline",
            enable_key_rotation=True,
            policy=iam.PolicyDocument(statements=self._key_statements()),
            removal_policy=RemovalPolicy.RETAIN,
        )

    def _key_statements(self) -> list[iam.PolicyStatement]:
        """Return the whole key policy: CDK adds none of these, and without them the first deployment fails.

        Roles of this account other than the customization role get the key through their own policies, which the first
        statement makes count.
        """
        account = {"StringEquals": {"aws:SourceAccount": self.account}}
        rules = self.format_arn(service="events", resource="rule", resource_name="*")
        log_groups = self.format_arn(service="logs", resource="log-group:*", arn_format=ArnFormat.NO_RESOURCE_NAME)
        return [
            _key_statement("Account", iam.AccountRootPrincipal(), ["kms:*"]),
            _key_statement(
                "CloudWatchLogs",
                iam.ServicePrincipal(f"logs.{self.region}.amazonaws.com"),
                ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
                {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
            ),
            _key_statement(
                "CloudWatchAlarms",
                iam.ServicePrincipal("cloudwatch.amazonaws.com"),
                ["kms:Decrypt", "kms:GenerateDataKey*"],
                account,
            ),
            _key_statement(
                "EventBridge",
                iam.ServicePrincipal("events.amazonaws.com"),
                ["kms:Decrypt", "kms:GenerateDataKey*"],
                # SQS guide, "Configure AWS KMS permissions with confused deputy protection": the key that EventBridge
                # sends for an encrypted queue
                {"ArnLike": {"aws:SourceArn": rules}},
            ),
            _key_statement(
                "CustomizationRole",
                iam.ArnPrincipal(self._customization_role.role_arn),
                list(_MODEL_KEY_ACTIONS),
                {"StringEquals": {"kms:ViaService": f"bedrock.{self.region}.amazonaws.com"}},
            ),
        ]

    def _build_access_log_bucket(self) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "AccessLogBucket",
            # S3 delivers access logs to buckets with its own keys only
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="ExpireAccessLogs",
                    expiration=Duration.days(365),
                    noncurrent_version_expiration=Duration.days(1),
                ),
                s3.LifecycleRule(id="RemoveMarkers", expired_object_delete_marker=True),
            ],
            removal_policy=RemovalPolicy.RETAIN,
        )
        acknowledge(
            bucket,
            "NIST.800.53.R5-S3DefaultEncryptionKMS",
            reason="S3's guide on server access logging takes SSE-S3 alone as the default encryption of their bucket.",
            limits="SSE-S3 encrypts every log, and a log names requests and keys, never content.",
        )
        return bucket

    def _build_bucket(self, id_: str, *, old_version_days: int, events: bool) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            id_,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            server_access_logs_bucket=self._access_logs,
            server_access_logs_prefix=f"{id_}/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="ExpireOldVersions",
                    noncurrent_version_expiration=Duration.days(old_version_days),
                    expired_object_delete_marker=True,
                ),
                s3.LifecycleRule(id="AbortUploads", abort_incomplete_multipart_upload_after=Duration.days(2)),
            ],
            removal_policy=RemovalPolicy.RETAIN,
        )
        if events:
            # The construct's own event_bridge_enabled brings a custom resource with a function along
            resource = cast("s3.CfnBucket", bucket.node.default_child)
            resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
                event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
            )
        return bucket

    def _build_table(self, id_: str, key_name: str) -> dynamodb.Table:
        return dynamodb.Table(
            self,
            id_,
            partition_key=dynamodb.Attribute(name=key_name, type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=self.key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=True,
            removal_policy=RemovalPolicy.RETAIN,
        )

    def _protect(self, config: DeploymentConfig) -> None:
        tables, buckets = (
            (self.runs_table, self.leases_table),
            (self._access_logs, self.data_bucket, self.artifact_bucket),
        )
        if config.backup_vault is None:
            for table in tables:
                acknowledge_unset(table, "backupVault")
        else:
            back_up(self, config.backup_vault, tables, self.key)
        if config.replication is None:
            for bucket in buckets:
                acknowledge_unset(bucket, "replication")
        else:
            replicate(self, config.replication, buckets, self.key)

    def _allow_customization(self, config: DeploymentConfig) -> None:
        """Give the customization role what Bedrock's guide lists: prepared files to read, its own folders to write."""
        bucket = self.artifact_bucket
        grants = [
            Grant(actions=("s3:ListBucket",), resources=(bucket.bucket_arn,)),
            _of_runs(("s3:GetObject",), bucket.arn_for_objects("runs/*/data/*")),
            _of_runs(("s3:GetObject", "s3:PutObject"), bucket.arn_for_objects("runs/*/bedrock/*")),
            self._key_through("s3", ("kms:Decrypt", "kms:GenerateDataKey")),
            self._key_through("bedrock", _MODEL_KEY_ACTIONS),
            *(job_network(self, config.vpc) if config.vpc else ()),
        ]
        # Inside the role it would close a circle of role, key and bucket
        managed_policy(self, "CustomizationPermissions", grants, roles=[self._customization_role])

    def _key_through(self, service: str, actions: tuple[str, ...]) -> Grant:
        return Grant(
            actions=actions,
            resources=(self.key.key_arn,),
            conditions={"StringEquals": {"kms:ViaService": f"{service}.{self.region}.amazonaws.com"}},
        )

    def _export(self, deployment_id: str) -> StorageExports:
        CfnOutput(self, "DataBucketName", value=self.data_bucket.bucket_name, description="Drop data sets here")
        CfnOutput(self, "ArtifactBucketName", value=self.artifact_bucket.bucket_name, description="Find results here")
        CfnOutput(self, "RunsTableName", value=self.runs_table.table_name, description="Every run, with its state")
        CfnOutput(self, "LeasesTableName", value=self.leases_table.table_name, description="What bills, and until when")
        return StorageExports(
            data_bucket_name=self.export_value(self.data_bucket.bucket_name),
            data_bucket_arn=self.export_value(self.data_bucket.bucket_arn),
            artifact_bucket_name=self.export_value(self.artifact_bucket.bucket_name),
            artifact_bucket_arn=self.export_value(self.artifact_bucket.bucket_arn),
            key_arn=self.export_value(self.key.key_arn),
            runs_table_name=self.export_value(self.runs_table.table_name),
            runs_table_arn=self.export_value(self.runs_table.table_arn),
            leases_table_name=self.export_value(self.leases_table.table_name),
            leases_table_arn=self.export_value(self.leases_table.table_arn),
            customization_role_arn=self.export_value(self._customization_role.role_arn),
            deployment_id=self.export_value(deployment_id, name=f"{self.stack_name}:DeploymentId"),
        )


def _of_runs(actions: tuple[str, ...], objects: str) -> Grant:
    return Grant(
        actions=actions,
        resources=(objects,),
        reason="One role serves every run, and a run's folder is named when it starts.",
        limits="reading is limited to prepared files and Bedrock's own output, writing to that output, and only "
        "customization jobs of this account may assume the role.",
    )


def _key_statement(
    sid: str, principal: iam.IPrincipal, actions: list[str], conditions: dict[str, dict[str, str]] | None = None
) -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid=sid,
        principals=[principal],
        actions=actions,
        # In a key policy this is the key itself
        resources=["*"],
        conditions=conditions,
    )
