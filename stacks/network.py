"""What a network of one's own takes: the statements for interfaces of functions and of customization jobs.

A network without a way to the internet needs endpoints; docs/settings.md names them.
"""

from aws_cdk import Stack

from stacks.config import Vpc
from stacks.permissions import Conditions, Grant

# What functions call from the network, by the names of interface endpoints; S3 and DynamoDB have gateway endpoints
# beside. Lambda delivers logs, traces and dead letters from outside of it
ENDPOINTS = ("bedrock", "bedrock-runtime", "dynamodb", "s3", "servicequotas", "sns", "ssm", "states")
_CHOSEN = "IAM knows no resource of these actions, or the service names the interface when it makes it."


def function_network(stack: Stack, vpc: Vpc) -> tuple[Grant, ...]:
    """Return what Lambda itself needs to attach a function (Lambda guide, "Required IAM permissions" of VPC access).

    It works with the role of the function, whose code gets none of it: calls from there carry lambda:SourceFunctionArn.
    """
    limits = "Lambda's own calls: those of the function's code are not allowed."
    return tuple(
        Grant(
            actions=tuple(f"ec2:{action}" for action in actions),
            resources=resources,
            conditions={"Null": {"lambda:SourceFunctionArn": "true"}},
            reason=_CHOSEN,
            limits=limits,
        )
        for actions, resources in (
            (("CreateNetworkInterface",), (_interfaces(stack), *_subnets(stack, vpc), *_security_groups(stack, vpc))),
            # The guide asks for all resource ids of the account here
            (
                ("DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"),
                (stack.format_arn(service="ec2", resource="*", resource_name="*"),),
            ),
            (("DescribeNetworkInterfaces", "DescribeSubnets"), ("*",)),
        )
    )


def job_network(stack: Stack, vpc: Vpc) -> tuple[Grant, ...]:
    """Return what the role of customization jobs needs (Bedrock guide, "Model customization access and security")."""
    job = stack.format_arn(service="bedrock", resource="model-customization-job", resource_name="*")
    tags = ["BedrockManaged", "BedrockModelCustomizationJobArn"]
    made: Conditions = {
        "StringEquals": {"aws:RequestTag/BedrockManaged": "true"},
        "ArnEquals": {"aws:RequestTag/BedrockModelCustomizationJobArn": job},
    }
    own: Conditions = {
        "StringEquals": {"ec2:ResourceTag/BedrockManaged": "true"},
        "ArnEquals": {
            "ec2:Subnet": list(_subnets(stack, vpc)),
            "ec2:ResourceTag/BedrockModelCustomizationJobArn": job,
        },
    }
    tagged: Conditions = {
        "StringEquals": {"ec2:CreateAction": "CreateNetworkInterface"},
        "ForAllValues:StringEquals": {"aws:TagKeys": tags},
    }
    described = ("NetworkInterfaces", "Vpcs", "DhcpOptions", "Subnets", "SecurityGroups")
    ended = ("CreateNetworkInterfacePermission", "DeleteNetworkInterface", "DeleteNetworkInterfacePermission")
    return (
        _of_jobs([f"Describe{kind}" for kind in described], ("*",), {}),
        _of_jobs(["CreateNetworkInterface"], (_interfaces(stack),), made),
        _of_jobs(["CreateNetworkInterface"], (*_subnets(stack, vpc), *_security_groups(stack, vpc)), {}),
        _of_jobs(list(ended), (_interfaces(stack),), own),
        _of_jobs(["CreateTags"], (_interfaces(stack),), tagged),
    )


def _of_jobs(actions: list[str], resources: tuple[str, ...], conditions: Conditions) -> Grant:
    return Grant(
        actions=tuple(f"ec2:{action}" for action in actions),
        resources=resources,
        conditions=conditions,
        reason=_CHOSEN,
        limits="the chosen subnets and security groups, and interfaces that bear the tags of a customization job.",
    )


def _interfaces(stack: Stack) -> str:
    return stack.format_arn(service="ec2", resource="network-interface", resource_name="*")


def _subnets(stack: Stack, vpc: Vpc) -> tuple[str, ...]:
    return tuple(stack.format_arn(service="ec2", resource="subnet", resource_name=id_) for id_ in vpc.subnet_ids)


def _security_groups(stack: Stack, vpc: Vpc) -> tuple[str, ...]:
    ids = vpc.security_group_ids
    return tuple(stack.format_arn(service="ec2", resource="security-group", resource_name=id_) for id_ in ids)
