"""The functions: one for each handler module, alike in all that `FUNCTIONS` and `permissions` do not list."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.config import DeploymentConfig
from stacks.nag import acknowledge, acknowledge_unset
from stacks.network import function_network
from stacks.permissions import Grant, Grants, managed_policy


@dataclass(frozen=True, kw_only=True)
class FunctionSpec:
    """What differs between functions.

    A function has one processor at 1,769 MB; a new account gets at most 3,008 MB (Lambda quotas, "Memory").
    """

    memory_mb: int = 512
    timeout_s: int = 60
    evaluates: bool = False  # needs the evaluation layer: numpy, jinja2, pygal
    starts_from_events: bool = False  # called by EventBridge, not by the state machine


FUNCTIONS: Mapping[str, FunctionSpec] = {
    "poll_uploads": FunctionSpec(),
    "plan_run": FunctionSpec(memory_mb=1769, timeout_s=900),
    "check_preconditions": FunctionSpec(timeout_s=120),
    "prepare_dataset": FunctionSpec(memory_mb=3008, timeout_s=900, evaluates=True),
    "is_within_budget": FunctionSpec(),
    "evaluate_shard": FunctionSpec(memory_mb=1024, timeout_s=900),
    "create_customization_job": FunctionSpec(timeout_s=120),
    "poll_customization_job": FunctionSpec(),
    "collect_training_metrics": FunctionSpec(memory_mb=1024, timeout_s=120),
    "create_model_deployment": FunctionSpec(timeout_s=120),
    "poll_model_deployment": FunctionSpec(),
    "create_provisioned_throughput": FunctionSpec(timeout_s=120),
    "poll_provisioned_throughput": FunctionSpec(),
    "compare_models": FunctionSpec(memory_mb=3008, timeout_s=900, evaluates=True),
    "promote_model": FunctionSpec(),
    "change_model_in_use": FunctionSpec(),
    "release_serving": FunctionSpec(timeout_s=300),
    "release_model": FunctionSpec(timeout_s=300),
    "publish_report": FunctionSpec(memory_mb=3008, timeout_s=600, evaluates=True),
    "record_failure": FunctionSpec(timeout_s=120),
    "release_resources": FunctionSpec(memory_mb=1024, timeout_s=600, evaluates=True),
    "sweep": FunctionSpec(timeout_s=840, starts_from_events=True),
    "explain_unused_upload": FunctionSpec(starts_from_events=True),
}


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every function is built with."""

    code: lambda_.Code
    environment: Mapping[str, str]
    core_layer: lambda_.ILayerVersion
    evaluation_layer: lambda_.ILayerVersion
    dead_letter_queue: sqs.IQueue
    key: kms.IKey
    config: DeploymentConfig
    grants: Grants
    network_policy: iam.ManagedPolicy | None


class TaskFunction(Construct):
    """A function with a log group and a role of its own."""

    def __init__(
        self, scope: Construct, module: str, *, spec: FunctionSpec, grants: tuple[Grant, ...], common: Common
    ) -> None:
        super().__init__(scope, "".join(word.capitalize() for word in module.split("_")))
        log_group = encrypted_log_group(self, "Logs", key=common.key, retention_days=common.config.log_retention_days)
        self.role = self._build_role((*grants, *_operating_grants(spec, common, log_group)), common)
        self.function = lambda_.Function(
            self,
            "Function",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            code=common.code,
            handler=f"customization.handlers.{module}.handler",
            memory_size=spec.memory_mb,
            timeout=Duration.seconds(spec.timeout_s),
            layers=[common.core_layer, *([common.evaluation_layer] if spec.evaluates else [])],
            environment=dict(common.environment),
            tracing=lambda_.Tracing.ACTIVE,
            log_group=log_group,
            # CDK would add statements of its own for traces and the queue to a second policy
            role=self.role.without_policy_updates(),
            dead_letter_queue=common.dead_letter_queue if spec.starts_from_events else None,
            reserved_concurrent_executions=common.config.reserved_concurrency,
            # A run under way goes on with the version it began with, after a redeploy too
            current_version_options=lambda_.VersionOptions(removal_policy=RemovalPolicy.RETAIN),
        )
        self._attach_to_network(common)
        if common.config.reserved_concurrency is None:
            acknowledge_unset(self.function, "reservedConcurrency")
        if not spec.starts_from_events:
            acknowledge(
                self.function,
                "Serverless-LambdaDLQ",
                "NIST.800.53.R5-LambdaDLQ",
                reason="The state machine calls it and waits, so a failed call goes to Retry and Catch.",
                limits="every Task of the state machine has both.",
            )

    def _attach_to_network(self, common: Common) -> None:
        vpc = common.config.vpc
        if vpc is None or common.network_policy is None:
            acknowledge_unset(self.function, "vpc")
            return
        common.network_policy.attach_to_role(self.role)
        # Lambda looks at the role's permissions when it makes the function
        self.function.node.add_dependency(common.network_policy)
        resource = cast("lambda_.CfnFunction", self.function.node.default_child)
        # The construct's own vpc wants to know all of a network, its zones included
        resource.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
            subnet_ids=list(vpc.subnet_ids), security_group_ids=list(vpc.security_group_ids)
        )

    def _build_role(self, grants: tuple[Grant, ...], common: Common) -> iam.Role:
        # Lambda guide, "Working with AWS managed policies in the execution role", names the key for the role's trust
        own = {"StringEquals": {"aws:SourceAccount": Stack.of(self).account}}
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com", conditions=own))
        managed_policy(role, "Permissions", (*grants, *common.grants.key_for(grants)), roles=[role])
        return role


def network_policy(stack: Stack, config: DeploymentConfig) -> iam.ManagedPolicy | None:
    """Return what attaches functions to the network of the settings: one for all, since 16 subnets fill a policy."""
    if config.vpc is None:
        return None
    return managed_policy(stack, "NetworkPermissions", function_network(stack, config.vpc))


def encrypted_log_group(scope: Construct, id_: str, *, key: kms.IKey, retention_days: int) -> logs.LogGroup:
    """Return a log group that goes with the stack. `retention_days` has to be a number that CloudWatch Logs knows."""
    group = logs.LogGroup(scope, id_, encryption_key=key, removal_policy=RemovalPolicy.DESTROY)
    cast("logs.CfnLogGroup", group.node.default_child).retention_in_days = retention_days
    return group


def _operating_grants(spec: FunctionSpec, common: Common, log_group: logs.ILogGroup) -> tuple[Grant, ...]:
    writes_logs = Grant(actions=("logs:CreateLogStream", "logs:PutLogEvents"), resources=(log_group.log_group_arn,))
    traces = common.grants.unscoped("xray:PutTraceSegments", "xray:PutTelemetryRecords")
    grants = [writes_logs, traces]
    if spec.starts_from_events:
        grants.append(Grant(actions=("sqs:SendMessage",), resources=(common.dead_letter_queue.queue_arn,)))
    return tuple(grants)
