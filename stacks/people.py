"""What people need next: managed policies to attach to their roles, one for each thing that people do, and links."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from aws_cdk import ArnFormat, CfnOutput, Stack
from aws_cdk import aws_stepfunctions as sfn

from stacks.config import DeploymentConfig
from stacks.permissions import REPORTS, Grant, Grants, managed_policy
from stacks.storage import StorageExports

_DESCRIPTIONS = {
    "DataContributor": "Drop files under incoming/ and see what lies there",
    "ReportReader": "Read reports and the pages and tables that compare runs",
    "RunOperator": "Start, stop, redrive and look at runs",
    "InvokeServedModel": "Attach this to the role of an application that asks the models in use",
}
_CONSOLE = "https://{region}.console.aws.amazon.com"


def build_outputs(
    stack: Stack, *, config: DeploymentConfig, exports: StorageExports, machine: sfn.StateMachine, topic_arn: str
) -> None:
    """Add the outputs that say where to go next."""
    console = _CONSOLE.format(region=config.region)
    machine_arn = machine.state_machine_arn
    outputs = {
        "DropLocation": (f"s3://{exports.data_bucket_name}/incoming/", "Drop data sets here, each in its own folder"),
        "StateMachineArn": (machine_arn, "Start runs here"),
        "StateMachineUrl": (
            f"{console}/states/home?region={config.region}#/statemachines/view/{machine_arn}",
            "Start and watch runs in the console",
        ),
        "TopicArn": (topic_arn, "Subscribe to the notifications here"),
        "DashboardUrl": (
            f"{console}/cloudwatch/home?region={config.region}#dashboards/dashboard/{config.dashboard_name}",
            "What runs, what bills and what failed",
        ),
    }
    for name, (value, description) in outputs.items():
        CfnOutput(stack, name, value=value, description=description)


def build_policies(stack: Stack, grants: Mapping[str, tuple[Grant, ...]]) -> None:
    """Add a managed policy for each row of `people_grants`, with its ARN as an output."""
    for name, allowed in grants.items():
        policy = managed_policy(stack, name, allowed, description=_DESCRIPTIONS[name])
        CfnOutput(stack, f"{name}PolicyArn", value=policy.managed_policy_arn, description=_DESCRIPTIONS[name])


def people_grants(
    g: Grants, *, stack: Stack, stacks: tuple[str, ...], exports: StorageExports, machine: sfn.StateMachine
) -> dict[str, tuple[Grant, ...]]:
    """Return what each kind of person may do; `stacks` are those whose outputs name what the commands look at."""
    drop = (_drop(exports), _below_a_prefix(g.list_data()))
    read = (g.read(*REPORTS), _below_a_prefix(g.list_artifacts("runs/*", "datasets/*")))
    look = (g.runs("GetItem", "Scan"), g.query_runs())
    return {
        "DataContributor": (*drop, *g.key_for(drop)),
        "ReportReader": (*read, *g.key_for(read)),
        "RunOperator": (
            *_operate(stack, machine),
            *look,
            *g.key_for(look),
            # Which model is in use, as make runs tells it
            g.model_parameters("GetParameter"),
            _describe(stack, stacks),
        ),
        "InvokeServedModel": g.ask_served_models(),
    }


def _drop(exports: StorageExports) -> Grant:
    """Write below incoming/ and give up an upload half done; to read or delete what is there is for the run."""
    return Grant(
        actions=("s3:PutObject", "s3:AbortMultipartUpload"),
        resources=(f"{exports.data_bucket_arn}/incoming/*",),
        reason="People name the folders of their data sets.",
        limits="the place for data sets in one versioned bucket, where a write deletes nothing.",
    )


def _below_a_prefix(listing: Grant) -> Grant:
    """Let people list below the prefixes of `listing` alone: a function may ask for none, so that S3 answers 404."""
    return replace(listing, conditions={"StringLike": listing.conditions["StringLikeIfExists"]})


def _operate(stack: Stack, machine: sfn.StateMachine) -> tuple[Grant, ...]:
    """Start runs, and see, stop and redrive them with the children of their maps.

    The resource types are those of the Service Authorization Reference.
    """
    name = cast("sfn.CfnStateMachine", machine.node.default_child).attr_name

    def below(kind: str, rest: str) -> str:
        return stack.format_arn(
            service="states", resource=kind, resource_name=f"{name}{rest}", arn_format=ArnFormat.COLON_RESOURCE_NAME
        )

    runs, children, maps = below("execution", ":*"), below("execution", "/*:*"), below("mapRun", "/*")
    own = Grant(
        actions=("states:DescribeExecution", "states:GetExecutionHistory"),
        resources=(runs, children),
        reason="Step Functions names executions and the runs of their maps.",
        limits="the executions of one state machine.",
    )
    return (
        Grant(
            actions=("states:StartExecution", "states:ListExecutions", "states:DescribeStateMachine"),
            resources=(machine.state_machine_arn,),
        ),
        own,
        replace(
            own, actions=("states:StopExecution", "states:RedriveExecution", "states:ListMapRuns"), resources=(runs,)
        ),
        replace(own, actions=("states:DescribeMapRun", "states:ListExecutions"), resources=(maps,)),
    )


def _describe(stack: Stack, names: tuple[str, ...]) -> Grant:
    """Read the outputs of stacks, whose ids CloudFormation makes."""
    return Grant(
        actions=("cloudformation:DescribeStacks",),
        resources=tuple(
            stack.format_arn(service="cloudformation", resource="stack", resource_name=f"{name}/*") for name in names
        ),
        reason="CloudFormation makes the ids of stacks.",
        limits="reading the outputs of the stacks of this deployment.",
    )
